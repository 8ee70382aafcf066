//! Payloads: the input of `rtctl send` and the output of `rtctl listen`.

use anyhow::{Context as _, bail};

/// The payload: exactly one of these.
#[derive(clap::Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct PayloadArgs {
    /// Send this text
    #[arg(long)]
    text: Option<String>,
    /// Send these bytes, in hexadecimal; spaces are allowed: "de ad be ef"
    #[arg(long)]
    hex: Option<String>,
    /// Send the contents of this file
    #[arg(long)]
    file: Option<std::path::PathBuf>,
    /// Send a number (0x... for hexadecimal): a signal's value, or 8 bytes in native order for a
    /// queue
    #[arg(long, value_parser = number)]
    value: Option<u64>,
}

impl PayloadArgs {
    /// As bytes for a queue.
    pub fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        if let Some(text) = &self.text {
            return Ok(text.clone().into_bytes());
        }
        if let Some(hex) = &self.hex {
            return unhex(hex);
        }
        if let Some(file) = &self.file {
            return std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        }
        Ok(self.value.unwrap_or_default().to_ne_bytes().to_vec())
    }

    /// As a signal's value: the number, or up to 8 bytes in native order.
    pub fn signal_value(&self) -> anyhow::Result<u64> {
        if let Some(value) = self.value {
            return Ok(value);
        }
        let bytes = self.bytes()?;
        let mut value = [0; 8];
        let Some(room) = value.get_mut(..bytes.len()) else {
            bail!(
                "a signal carries 8 bytes, the payload has {}; send it to a queue, or use --value",
                bytes.len()
            );
        };
        room.copy_from_slice(&bytes);
        Ok(u64::from_ne_bytes(value))
    }
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| e.to_string())
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        bail!("--hex {text:?} has an odd number of digits");
    }
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    digits
        .chunks(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect::<Option<Vec<u8>>>()
        .with_context(|| format!("--hex {text:?} has a character that is not a hexadecimal digit"))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes as text in quotes if they are printable, otherwise in hexadecimal.
pub fn show(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => format!("{text:?}"),
        _ => format!("hex {}", hex(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_reads_what_it_writes() {
        assert_eq!(unhex("de ad BE ef").unwrap(), [0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(hex(&[0, 0xff]), "00ff");
        assert!(unhex("abc").is_err() && unhex("zz").is_err());
    }

    #[test]
    fn unprintable_bytes_show_as_hex() {
        assert_eq!(show(b"go"), "\"go\"");
        assert_eq!(show(b"a\x1b[2J"), "hex 611b5b324a");
    }
}
