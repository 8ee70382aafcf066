# What a parser of rt-tests' output sees: a key and a value a line. Latencies and times are left out.
#
# Input: standard output, or a histogram file. loops: what -l asked for, or 0. kept: a file with the shapes of the
# comment lines to show (those of the tool that is compared with); empty: all.

# Numbers become N, with the blanks that fill their column; a list of them becomes one.
function shape(text) {
    gsub(/ *-?[0-9]+/, "N", text)
    gsub(/N([ \t]*N)+/, "N", text)
    return text
}

# Lines that are redrawn count as they were last.
function party(id, cycles, text) {
    if (!(id in samples)) parties++
    samples[id] = cycles + 0
    lines[id] = text
}

BEGIN {
    if (kept != "") {
        while ((getline text < kept) > 0) is_kept[text] = 1
    }
}

{
    gsub(/\033\[[0-9;?]*[A-Za-z]/, "")
    gsub(/\r/, "")
}

/^T: *[0-9]+ / {
    id = $0
    sub(/ *\(.*/, "", id)
    cycles = $0
    sub(/.* C: */, "", cycles)
    sub(/ .*/, "", cycles)
    party(id, cycles, shape($0))
    next
}

/^#[0-9]+: ID/ {
    id = $1
    party(id, $NF, shape($0))
    next
}

# rt-tests write of a pair that has no sample yet: #3 -> #2 (not yet ready), or negative numbers.
/^#[0-9]+ -> #[0-9]+/ {
    sub(/ \(not yet ready\)/, ", Min 0, Cur 0, Avg 0, Max 0")
    latencies[$1] = shape($0)
    next
}

/^ *[0-9]+: *[0-9]+: *[0-9]+$/ {
    split($0, fields, ":")
    if (!((fields[1] + 0) in shown)) threads_shown++
    shown[fields[1] + 0] = 1
    next
}

/^[0-9]+[ \t][0-9]/ {
    rows++
    columns = NF - 1
    for (i = 2; i <= NF; i++) sum[i] += $i
    next
}

/^# / {
    text = $0
    # As many cycles as there were overflows.
    if (text ~ /^# Thread [0-9]+:/) sub(/:.*/, ":", text)
    if (/^# Total:/) {
        for (i = 3; i <= NF; i++) if ($i != sum[i - 1]) wrong_total = 1
        totals = NF - 2
    }
    text = shape(text)
    # The one that says who opened the device stands on standard error there.
    if (kept == "" || text in is_kept) comments[++comment_count] = text
    next
}

/^policy: / || /^[ \t]*$/ { next }

{ other[shape($0)]++ }

END {
    most = 0
    least = -1
    for (id in samples) {
        if (samples[id] > most) most = samples[id]
        if (least < 0 || samples[id] < least) least = samples[id]
        by_shape[lines[id]]++
    }
    for (id in latencies) by_shape[latencies[id]]++
    if (parties) {
        print "threads " parties
        print "samples " (least == 0 ? "none of some" : loops && most == loops ? "as many as asked for" : "some")
    }
    for (text in by_shape) print "line " by_shape[text] " x " text | "sort"
    for (text in other) print "other " text | "sort"
    close("sort")
    if (threads_shown) print "shown samples of " threads_shown
    if (rows) {
        print "rows " rows
        print "columns " columns
        print "total " (wrong_total || !totals ? "wrong" : "is that of the rows")
    }
    for (i = 1; i <= comment_count; i++) print "comment " comments[i]
}
