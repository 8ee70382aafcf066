//! Values that choose a behaviour: waiting, overflow, permissions, signals, priorities, accounts.

use super::{SECOND_NS, integer, parse_time, quoted, scalar_text, string, time};
use crate::config::reader::{FromToml, Refused};
use crate::config::suggest;
use crate::endpoint::{KINDS, Kind};
use crate::plan::watch::{OnRunaway, OnTampering};
use crate::plan::{Path, SkinChoice};
use crate::words::show_time;
use rtcore::lane::policy::{GroupMode, Overflow, SignalTarget, Wait};
use rtcore::sys::signame::{self, SignalNameError};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use toml::de::DeValue;

/// The time after a colon: microseconds alone, or a number with a unit.
fn micros_or_time(text: &str) -> Option<u64> {
    let has_unit = !text.ends_with(|c: char| c.is_ascii_digit());
    if has_unit {
        parse_time(text)
    } else {
        parse_time(&format!("{text}us"))
    }
}

/// Longest spin before a thread blocks.
pub const SPIN_NS_MAX: u64 = 10_000_000;
/// Longest time for which a full target may block its source.
pub const BLOCK_NS_MAX: u64 = 10 * SECOND_NS;

/// `block`, `spin:<us>` or `poll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitText(pub Wait);

inline_schema!(
    WaitText,
    json_schema!({ "type": "string", "pattern": "^(block|poll|spin:[0-9]+(\\.[0-9]+)?(ns|us|ms)?)$" })
);

impl FromToml for WaitText {
    fn from_toml(value: &DeValue<'_>) -> Result<WaitText, Refused> {
        let text = string(value, "\"block\"")?;
        match text.split_once(':') {
            None if text == "block" => return Ok(WaitText(Wait::Block)),
            None if text == "poll" => return Ok(WaitText(Wait::Poll)),
            None if text == "spin" => {
                return Err(Refused::new(
                    "`spin` needs its time in microseconds",
                    "\"spin:50\"",
                ));
            }
            Some(("spin", time)) => match micros_or_time(time) {
                Some(spin_ns) if (1_000..=SPIN_NS_MAX).contains(&spin_ns) => {
                    return Ok(WaitText(Wait::Spin { spin_ns }));
                }
                Some(ns) => {
                    let message = format!(
                        "a spin of {} is not within 1us to {}; `poll` spins without end",
                        show_time(ns),
                        show_time(SPIN_NS_MAX)
                    );
                    return Err(Refused::new(message, "\"spin:50\""));
                }
                None => {}
            },
            _ => {}
        }
        Err(unknown_choice(text, &["block", "spin:50", "poll"]))
    }
}

/// `reject`, `displace-oldest`, `displace-newest`, `conflate` or `block:<us>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverflowText(pub Overflow);

inline_schema!(
    OverflowText,
    json_schema!({
        "type": "string",
        "pattern": "^(reject|displace-oldest|displace-newest|conflate|block:[0-9]+(\\.[0-9]+)?(ns|us|ms|s)?)$"
    })
);

impl FromToml for OverflowText {
    fn from_toml(value: &DeValue<'_>) -> Result<OverflowText, Refused> {
        let text = string(value, "\"reject\"")?;
        let plain = match text {
            "reject" => Some(Overflow::Reject),
            "displace-oldest" => Some(Overflow::DisplaceOldest),
            "displace-newest" => Some(Overflow::DisplaceNewest),
            "conflate" => Some(Overflow::Conflate),
            "block" => {
                let message = "`block` needs a bound in microseconds: no wait is unbounded";
                return Err(Refused::new(message, "\"block:500\""));
            }
            _ => None,
        };
        if let Some(plain) = plain {
            return Ok(OverflowText(plain));
        }
        if let Some(time) = text.strip_prefix("block:")
            && let Some(limit_ns) = micros_or_time(time)
        {
            if (1_000..=BLOCK_NS_MAX).contains(&limit_ns) {
                return Ok(OverflowText(Overflow::Block { limit_ns }));
            }
            let (got, most) = (show_time(limit_ns), show_time(BLOCK_NS_MAX));
            return Err(Refused::new(
                format!("a bound of {got} is not within 1us to {most}"),
                "\"block:500\"",
            ));
        }
        Err(unknown_choice(
            text,
            &[
                "reject",
                "displace-oldest",
                "displace-newest",
                "conflate",
                "block:500",
            ],
        ))
    }
}

fn unknown_choice(text: &str, choices: &[&str]) -> Refused {
    let example = suggest::nearest(text, choices.iter().copied())
        .or(choices.first().copied())
        .unwrap_or("");
    let known = suggest::list(choices.iter().copied());
    Refused::new(
        format!("{} is not one of {known}", quoted(text)),
        quoted(example),
    )
}

/// A share, `1%` to `100%`; the value is the percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DutyText(pub u32);

inline_schema!(
    DutyText,
    json_schema!({ "type": "string", "pattern": "^([1-9][0-9]?|100)%$" })
);

impl FromToml for DutyText {
    fn from_toml(value: &DeValue<'_>) -> Result<DutyText, Refused> {
        let meant = quoted(&format!("{}%", percent_meant(value)));
        if let Some(number) = integer(value) {
            return Err(Refused::new(format!("{number} has no percent sign"), meant));
        }
        let text = string(value, &meant)?;
        match text.strip_suffix('%').map(str::parse::<u32>) {
            Some(Ok(percent)) if (1..=100).contains(&percent) => Ok(DutyText(percent)),
            Some(Ok(percent)) => Err(Refused::new(
                format!("{percent}% is not within 1% to 100%"),
                meant,
            )),
            _ => Err(Refused::new(
                format!("{} is not a share (a whole number and %)", quoted(text)),
                meant,
            )),
        }
    }
}

/// The share that a wrong value probably means; 80 if it contains no number.
fn percent_meant(value: &DeValue<'_>) -> u64 {
    let text = scalar_text(value).unwrap_or_default();
    let number = text.trim().trim_end_matches('%').trim_end();
    match number.split_once('.') {
        // 0.5 of the CPU, or 12.5 %.
        Some(("0", share)) => format!("{share:0<2}")
            .get(..2)
            .and_then(|s| s.parse::<u64>().ok()),
        Some((whole, _)) => whole.parse().ok(),
        None => number.parse::<u64>().ok(),
    }
    .map_or(80, |percent| percent.clamp(1, 100))
}

/// Smallest and largest value of RLIMIT_RTTIME: the kernel counts in ticks.
const RTTIME_NS: std::ops::RangeInclusive<u64> = 10_000_000..=60 * SECOND_NS;

/// A time, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RttimeText(pub Option<u64>);

inline_schema!(
    RttimeText,
    json_schema!({ "type": "string", "pattern": "^(off|[0-9]+(\\.[0-9]+)?(us|ms|s|min))$" })
);

impl FromToml for RttimeText {
    fn from_toml(value: &DeValue<'_>) -> Result<RttimeText, Refused> {
        if value.as_str() == Some("off") {
            return Ok(RttimeText(None));
        }
        // In TOML `false` is another way to write it.
        if let Some(truth) = value.as_bool() {
            return Err(Refused::wrong_type(
                value,
                "a time or \"off\"",
                if truth { "\"2s\"" } else { "\"off\"" },
            ));
        }
        time(value, &RTTIME_NS)
            .map(|ns| RttimeText(Some(ns)))
            .map_err(|mut refused| {
                refused.message += "; `off` sets no limit";
                refused
            })
    }
}

/// Permission bits, `"0660"` or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeBits(pub u32);

inline_schema!(
    ModeBits,
    json_schema!({ "oneOf": [
        { "type": "string", "pattern": "^(0o?)?[0-7]{3}$" },
        { "type": "integer", "minimum": 0, "maximum": 0o777 }
    ] })
);

impl FromToml for ModeBits {
    fn from_toml(value: &DeValue<'_>) -> Result<ModeBits, Refused> {
        if let Some(integer_value) = value.as_integer() {
            let number = integer(value);
            // 660 without a prefix is decimal in TOML and would silently mean 0o1224.
            if integer_value.radix() == 10 && number.is_some_and(|n| n > 7) {
                let message = format!(
                    "{} is decimal; permission bits are octal",
                    integer_value.as_str()
                );
                let octal = parse_mode(integer_value.as_str()).unwrap_or(MODE_EXAMPLE);
                return Err(Refused::new(message, format!("\"{octal:04o}\"")));
            }
            return match number.and_then(|n| u32::try_from(n).ok()) {
                Some(mode) if mode <= 0o777 => Ok(ModeBits(mode)),
                _ => Err(Refused::new(
                    format!("{integer_value} is not within 0 to 0o777"),
                    "\"0660\"",
                )),
            };
        }
        let text = string(value, "\"0660\"")?;
        parse_mode(text).map(ModeBits).ok_or_else(|| {
            Refused::new(
                format!("{} is not octal within 0 to 0777", quoted(text)),
                "\"0660\"",
            )
        })
    }
}

/// The suggestion if the digits are not permission bits.
const MODE_EXAMPLE: u32 = 0o660;

fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    // `from_str_radix` would accept a sign.
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| plain && *mode <= 0o777)
}

/// A signal, as kernel number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalNumber(pub i32);

inline_schema!(
    SignalNumber,
    json_schema!({ "oneOf": [
        { "type": "string", "pattern": "^(SIG)?([A-Z][A-Z0-9]*|RTMIN(\\+[0-9]+)?|RTMAX(-[0-9]+)?)$" },
        { "type": "integer", "minimum": 1, "maximum": 64 }
    ] })
);

impl FromToml for SignalNumber {
    fn from_toml(value: &DeValue<'_>) -> Result<SignalNumber, Refused> {
        let (result, text) = match integer(value) {
            Some(number) => {
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                (signame::from_number(number), number.to_string())
            }
            None => {
                let text = string(value, "\"SIGRTMIN+3\"")?;
                (signame::parse(text), text.to_owned())
            }
        };
        result.map(SignalNumber).map_err(|error| match error {
            SignalNameError::Unknown => {
                let names: Vec<String> = signame::standard_names().collect();
                let example = suggest::nearest(&text, names.iter().map(String::as_str))
                    .unwrap_or("SIGRTMIN+3");
                Refused::new(
                    format!("{} is not a signal", quoted(&text)),
                    quoted(example),
                )
            }
            other => Refused::new(other.to_string(), "\"SIGRTMIN+3\""),
        })
    }
}

/// `keep`, or a fixed message-queue priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MqPriority(pub Option<u32>);

inline_schema!(
    MqPriority,
    json_schema!({ "oneOf": [{ "const": "keep" }, { "type": "integer", "minimum": 0, "maximum": 32767 }] })
);

impl FromToml for MqPriority {
    fn from_toml(value: &DeValue<'_>) -> Result<MqPriority, Refused> {
        match (integer(value), value.as_str()) {
            (Some(number), _) => match u32::try_from(number) {
                Ok(priority) if priority <= 32_767 => Ok(MqPriority(Some(priority))),
                _ => {
                    let nearest = if number < 0 { "0" } else { "32767" };
                    Err(Refused::new(
                        format!("{number} is not within 0 to 32767"),
                        nearest,
                    ))
                }
            },
            (None, Some("keep")) => Ok(MqPriority(None)),
            (None, Some(text)) => {
                let meant = text
                    .trim()
                    .parse::<u32>()
                    .ok()
                    .filter(|priority| *priority <= 32_767);
                let meant =
                    meant.map_or_else(|| "\"keep\"".to_owned(), |priority| priority.to_string());
                Err(Refused::new(
                    format!("{} is not `keep` or a number", quoted(text)),
                    meant,
                ))
            }
            (None, None) => Err(Refused::wrong_type(
                value,
                "\"keep\" or a number",
                "\"keep\"",
            )),
        }
    }
}

/// A user or group, by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// A name in /etc/passwd or /etc/group.
    Name(String),
    /// A number.
    Id(u32),
}

inline_schema!(
    Account,
    json_schema!({ "oneOf": [
        { "type": "string", "minLength": 1 },
        { "type": "integer", "minimum": 0, "maximum": 4_294_967_294_u32 }
    ] })
);

impl FromToml for Account {
    fn from_toml(value: &DeValue<'_>) -> Result<Account, Refused> {
        match (integer(value), value.as_str()) {
            // The last number means "no id" to the kernel.
            (Some(number), _) => match u32::try_from(number) {
                Ok(id) if id != u32::MAX => Ok(Account::Id(id)),
                _ => Err(Refused::new(
                    format!("{number} is not an id (0 to {})", u32::MAX - 1),
                    "1000",
                )),
            },
            (None, Some("")) => Err(Refused::new("an account cannot be empty", "\"robot\"")),
            (None, Some(name)) => Ok(Account::Name(name.to_owned())),
            (None, None) => Err(Refused::wrong_type(value, "a name or an id", "\"robot\"")),
        }
    }
}

/// Defines a value that is one of a few words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident($of:ty) { $($word:literal => $value:expr),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub $of);

        inline_schema!($name, json_schema!({ "enum": [$($word),+] }));

        impl FromToml for $name {
            fn from_toml(value: &DeValue<'_>) -> Result<$name, Refused> {
                let choices = [$($word),+];
                let text = string(value, &format!("{:?}", choices[0]))?;
                match text {
                    $($word => Ok($name($value)),)+
                    _ => Err(unknown_choice(text, &choices)),
                }
            }
        }
    };
}

/// The name of a kind of endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindText(pub Kind);

inline_schema!(KindText, json_schema!({ "type": "string" }));

impl FromToml for KindText {
    fn from_toml(value: &DeValue<'_>) -> Result<KindText, Refused> {
        let names: Vec<&str> = KINDS.iter().map(|(_, name, _)| *name).collect();
        let text = string(value, "\"mqueue\"")?;
        let found = KINDS.iter().find(|(_, name, _)| *name == text);
        found
            .map(|(kind, ..)| KindText(*kind))
            .ok_or_else(|| unknown_choice(text, &names))
    }
}

words! {
    /// `auto`, `posix` or `cobalt`.
    SkinText(SkinChoice) {
        "auto" => SkinChoice::Auto,
        "posix" => SkinChoice::Posix,
        "cobalt" => SkinChoice::Cobalt,
    }
}

words! {
    /// `report`, `demote` or `stop`.
    OnRunawayText(OnRunaway) {
        "report" => OnRunaway::Report,
        "demote" => OnRunaway::Demote,
        "stop" => OnRunaway::Stop,
    }
}

words! {
    /// `report` or `restore`.
    OnTamperingText(OnTampering) { "report" => OnTampering::Report, "restore" => OnTampering::Restore }
}

words! {
    /// `routed` or `direct`.
    PathText(Path) { "routed" => Path::Routed, "direct" => Path::Direct }
}

words! {
    /// `refuse` or `warn`; the value is whether a thread above a ceiling is admitted.
    AboveCeilingText(bool) { "refuse" => false, "warn" => true }
}

words! {
    /// `process` or `thread`.
    TargetText(SignalTarget) { "process" => SignalTarget::Process, "thread" => SignalTarget::Thread }
}

words! {
    /// `all`, `round-robin` or `any`.
    GroupModeText(GroupMode) {
        "all" => GroupMode::All,
        "round-robin" => GroupMode::RoundRobin,
        "any" => GroupMode::Any,
    }
}
