//! Percent-encoding of URLs (RFC 3986).

use std::fmt::Write;

use zeroize::Zeroizing;

/// Encodes every byte of the text, except unreserved characters and the ASCII characters of `also`.
///
/// The result may contain a secret, so dropping it wipes its memory.
pub(crate) fn encode(text: &str, also: &str) -> Zeroizing<String> {
    // Has room for the whole result, so that no reallocation leaves a copy of the secret behind.
    let mut encoded = Zeroizing::new(String::with_capacity(3 * text.len()));
    for byte in text.bytes() {
        if is_unreserved(byte) || also.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Decodes a text.
///
/// # Errors
///
/// A description of the problem. It contains no part of the text, because the text may be a secret.
pub(crate) fn decode(text: &str) -> Result<Zeroizing<String>, &'static str> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = (rest.next().and_then(digit), rest.next().and_then(digit));
        let (Some(high), Some(low)) = digits else {
            return Err("a % must be followed by two hexadecimal digits; write the character % itself as %25");
        };
        bytes.push(16 * high + low);
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err("the percent-encoded text must be UTF-8"),
    }
}

/// Returns the value of a hexadecimal digit.
fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_returns_the_text_that_was_encoded() {
        for (text, encoded) in [
            ("", ""),
            ("aZ0-._~", "aZ0-._~"),
            ("a b", "a%20b"),
            ("p@ss/w:rd%?#", "p%40ss%2Fw%3Ard%25%3F%23"),
            ("ключ", "%D0%BA%D0%BB%D1%8E%D1%87"),
            ("\0\n", "%00%0A"),
        ] {
            assert_eq!(*encode(text, ""), encoded);
            assert_eq!(*decode(encoded).unwrap(), text);
        }
        assert_eq!(*encode("/run/a b", "/"), "/run/a%20b");
        assert_eq!(*decode("%2f%2F+").unwrap(), "//+");
    }

    #[test]
    fn an_invalid_encoding_is_refused_without_being_shown() {
        for bad in [
            "sesame%",
            "sesame%4",
            "sesame%4x",
            "sesame%%41",
            "sesame%+1",
            "sesame%é",
            "sesame%ff",
        ] {
            let problem = decode(bad).map(|_| ()).unwrap_err();
            assert!(!problem.contains("sesame"), "{problem}");
        }
    }
}
