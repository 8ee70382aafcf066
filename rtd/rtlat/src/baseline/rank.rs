//! Whether two lots of figures come from one distribution: the two-sided test of Mann and Whitney
//! on ranks, and Holm's correction for asking more than once.
//!
//! Up to [`EXACT_MAX`] figures the p value is exact, ties included: the share of all ways to deal
//! the ranks that are found into two lots whose rank sum is as far from its mean or farther. Above,
//! it is the normal approximation with corrections for ties and continuity. Ranks ask nothing of
//! the shape of a distribution, which for latencies has a long tail; infinity is a figure like any
//! other.

/// Figures of both lots together up to which the p value is exact.
pub const EXACT_MAX: usize = 60;

/// Outcome of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Test {
    /// Pairs in which the figure of the first lot is the larger one; half of those that are equal
    /// added.
    pub u: f64,
    /// Probability of a difference as large or larger if there is none.
    pub p: f64,
}

/// Compares two lots; none of one of them: p is 1.
pub fn mann_whitney(first: &[f64], second: &[f64]) -> Test {
    let (ranks, ties) = doubled_ranks(first, second);
    let own = &ranks[..first.len()];
    let sum: u64 = own.iter().sum();
    let (n, m) = (count(first.len()), count(second.len()));
    let u = to_f64(sum) / 2.0 - to_f64(n * (n + 1)) / 2.0;
    if first.is_empty() || second.is_empty() {
        return Test { u, p: 1.0 };
    }
    let p = if ranks.len() <= EXACT_MAX {
        exact(&ranks, first.len(), sum)
    } else {
        normal(u, n, m, ties)
    };
    Test { u, p: p.min(1.0) }
}

/// The smallest p value that lots of these sizes can give: 2 of all ways to deal.
pub fn p_min(first: usize, second: usize) -> f64 {
    let (n, m) = (to_f64(count(first)), count(second));
    // Ways: (n + m) over m; grows past any bound that matters and stays finite as a logarithm.
    let ways_log: f64 = (1..=m).map(|k| ((n + to_f64(k)) / to_f64(k)).ln()).sum();
    (2.0 * (-ways_log).exp()).min(1.0)
}

/// Marks the p values that are significant at `alpha` for all of them together (Holm, step down).
pub fn holm(p: &[f64], alpha: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut stands = vec![false; p.len()];
    for (left, at) in (1..=p.len()).rev().zip(order) {
        if p[at] > alpha / to_f64(count(left)) {
            break;
        }
        stands[at] = true;
    }
    stands
}

/// Twice the ranks (whole numbers even where ties share the mean of theirs), first lot first; and
/// the sum of t^3 - t over all groups of t equal figures.
fn doubled_ranks(first: &[f64], second: &[f64]) -> (Vec<u64>, f64) {
    let all: Vec<f64> = first.iter().chain(second).copied().collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|a, b| all[*a].total_cmp(&all[*b]));
    let mut ranks = vec![0; all.len()];
    let mut ties = 0.0;
    let mut start = 0;
    while start < order.len() {
        let value = all[order[start]];
        let end = start
            + order[start..]
                .iter()
                .take_while(|at| all[**at].total_cmp(&value).is_eq())
                .count();
        for at in &order[start..end] {
            // Ranks start + 1 ..= end; their mean, doubled.
            ranks[*at] = count(start + 1 + end);
        }
        let equal = to_f64(count(end - start));
        ties += equal.powi(3) - equal;
        start = end;
    }
    (ranks, ties)
}

/// Counts the ways to choose `size` of the ranks by their sum, one rank after the other.
fn exact(ranks: &[u64], size: usize, sum: u64) -> f64 {
    // Without ties all doubled ranks are even, and half the sums do.
    let unit = if ranks.iter().all(|rank| rank.is_multiple_of(2)) {
        2
    } else {
        1
    };
    let ranks: Vec<u64> = ranks.iter().map(|rank| rank / unit).collect();
    let (sum, total) = (sum / unit, ranks.iter().sum::<u64>());
    // At most 60 figures: sums up to 60 * 61, and fewer than 2^60 ways, which f64 adds to 16
    // digits.
    let index = |sum: u64| usize::try_from(sum).unwrap_or(0);
    let mut ways = vec![vec![0.0; index(total) + 1]; size + 1];
    ways[0][0] = 1.0;
    let mut reached = 0;
    for (taken, rank) in ranks.iter().enumerate() {
        reached += rank;
        // Fewer chosen than this cannot become `size` any more with the ranks that are left.
        let least = (size + taken + 1).saturating_sub(ranks.len()).max(1);
        for chosen in (least..=size.min(taken + 1)).rev() {
            let (fewer, more) = ways.split_at_mut(chosen);
            for (from, to) in fewer[chosen - 1]
                .iter()
                .zip(&mut more[0][index(*rank)..=index(reached)])
            {
                *to += from;
            }
        }
    }
    // Times the number of figures, so that the mean is whole: |sum - total * size / all|.
    let (all, chosen) = (count(ranks.len()), count(size));
    let far = |sum: u64| (sum * all).abs_diff(total * chosen);
    let least = far(sum);
    let hits = ways[size]
        .iter()
        .zip(0..)
        .filter(|(_, sum)| far(*sum) >= least);
    hits.map(|(ways, _)| ways).sum::<f64>() / ways[size].iter().sum::<f64>()
}

fn normal(u: f64, n: u64, m: u64, ties: f64) -> f64 {
    let (n, m) = (to_f64(n), to_f64(m));
    let all = n + m;
    let variance = n * m / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let far = ((u - n * m / 2.0).abs() - 0.5).max(0.0) / variance.sqrt();
    2.0 * upper_tail(far)
}

/// Share of a normal distribution above `z` >= 0: the continued fraction of Laplace far out, the
/// series around 0 near.
fn upper_tail(z: f64) -> f64 {
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if z > 3.0 {
        let fraction = (1..=80)
            .rev()
            .map(f64::from)
            .fold(z, |below, k| z + k / below);
        return density / fraction;
    }
    let (mut term, mut sum) = (z, z);
    for k in 1..=80 {
        term *= z * z / f64::from(2 * k + 1);
        sum += term;
    }
    0.5 - density * sum
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and sums of ranks, far below 2^53"
)]
fn to_f64(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(test: Test, u: f64, p: f64) {
        assert!(
            (test.u - u).abs() < 1e-9 && (test.p - p).abs() < 1e-9 * p.max(1e-3),
            "{test:?} is not {u} {p}"
        );
    }

    #[test]
    fn small_lots_are_counted_by_hand() {
        // Ranks 1 and 2 of 4: one of six ways, and its mirror image.
        is(mann_whitney(&[1.0, 2.0], &[3.0, 4.0]), 0.0, 2.0 / 6.0);
        is(mann_whitney(&[3.0, 4.0], &[1.0, 2.0]), 4.0, 2.0 / 6.0);
        // 5 of 5 apart: 2 of 252.
        is(
            mann_whitney(&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]),
            0.0,
            2.0 / 252.0,
        );
        is(mann_whitney(&[1.0; 9], &[1.0; 9]), 40.5, 1.0);
        is(mann_whitney(&[], &[1.0]), 0.0, 1.0);
    }

    #[test]
    fn exact_values_are_those_of_scipy_and_of_all_ways_where_there_are_ties() {
        let (a, b) = ([1.1, 2.2, 3.3, 4.4, 5.5], [2.0, 6.1, 7.2, 8.3, 9.4, 10.5]);
        is(mann_whitney(&a, &b), 4.0, 0.051_948_051_948_051_95);
        let (a, b) = (
            [1.0, 2.0, 2.0, 3.0, 5.0, 5.0, 7.0],
            [2.0, 4.0, 5.0, 6.0, 8.0, 8.0, 9.0],
        );
        is(mann_whitney(&a, &b), 11.0, 0.095_571_095_571_095_57);
    }

    #[test]
    fn large_lots_are_those_of_scipys_approximation() {
        let lot = |n: u32, step: u32, of: u32, from: f64| -> Vec<f64> {
            (0..n).map(|i| from + f64::from(i * step % of)).collect()
        };
        // mannwhitneyu(a, b, method='asymptotic'), two-sided, with many ties.
        let (a, b) = (lot(40, 37, 13, 0.0), lot(45, 53, 14, 1.0));
        is(mann_whitney(&a, &b), 694.5, 0.070_395_310_421_516_41);
    }

    #[test]
    fn the_normal_tail_is_right_near_and_far() {
        for (z, tail) in [
            (0.0, 0.5),
            (1.96, 0.024_997_895_148_220_4),
            (2.999, 0.001_354_334_4),
            (6.0, 9.865_876e-10),
        ] {
            assert!(
                (upper_tail(z) / tail - 1.0).abs() < 1e-5,
                "{z}: {}",
                upper_tail(z)
            );
        }
        assert!((upper_tail(2.999_999) / upper_tail(3.000_001) - 1.0).abs() < 1e-4);
    }

    #[test]
    fn infinity_is_a_figure_and_orders_last() {
        let gone = [f64::INFINITY; 8];
        let there = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7];
        is(mann_whitney(&gone, &there), 64.0, p_min(8, 8));
        is(mann_whitney(&gone, &gone), 32.0, 1.0);
    }

    #[test]
    fn the_smallest_p_is_two_of_all_ways() {
        assert!((p_min(5, 5) - 2.0 / 252.0).abs() < 1e-12);
        assert!((p_min(1, 1) - 1.0).abs() < 1e-12);
        assert!((p_min(0, 4) - 1.0).abs() < 1e-12);
        assert!(p_min(10_000, 10_000) < 1e-300);
    }

    #[test]
    fn holm_steps_down_and_stops() {
        assert_eq!(holm(&[0.04, 0.001, 0.02], 0.05), [true, true, true]);
        assert_eq!(holm(&[0.04, 0.001, 0.03], 0.05), [false, true, false]);
        assert_eq!(holm(&[0.02, 0.02], 0.03), [false, false]);
        assert!(holm(&[], 0.01).is_empty());
    }
}
