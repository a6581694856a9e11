//! Numbers as tar headers have them: octal digits, or base 256 where these are too few.

/// Reads a field of a header. `None` where it is no number or does not fit.
pub(super) fn field(bytes: &[u8]) -> Option<i64> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base_256(bytes),
        _ => octal(bytes),
    }
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let text = bytes.trim_ascii_start();
    let end = text.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if !rest.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Two's complement, most significant byte first; the highest bit of the field only marks the format.
fn base_256(bytes: &[u8]) -> Option<i64> {
    let (first, rest) = bytes.split_first()?;
    let negative = first & 0x40 != 0;
    let start = i64::from(first & 0x3f) | if negative { !0x3f } else { 0 };
    rest.iter().try_fold(start, |value, byte| value.checked_mul(256)?.checked_add(i64::from(*byte)))
}

/// Reads decimal digits, as PAX records have them.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Reads a PAX time, seconds since 1970 with a fraction: whole seconds and the nanoseconds above them.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = text.split_at(point);
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanoseconds = 0u32;
    let mut unit = 100_000_000;
    for digit in fraction.iter().skip(1) {
        if !digit.is_ascii_digit() {
            return None;
        }
        nanoseconds += unit * u32::from(digit - b'0');
        unit /= 10;
    }
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::{decimal, field, time};

    #[test]
    fn octal_and_base_256_are_read() {
        assert_eq!(field(b"0000644\0"), Some(0o644));
        assert_eq!(field(b"   644 \0"), Some(0o644));
        assert_eq!(field(b"77777777777\0"), Some(0o77_777_777_777));
        assert_eq!(field(b"\0\0\0\0"), Some(0));
        assert_eq!(field(b"12a4"), None);
        assert_eq!(field(b"12\0x"), None);
        assert_eq!(field(&[0x80, 0, 0, 1, 0]), Some(256));
        assert_eq!(field(&[0xff, 0xff, 0xff, 0xff]), Some(-1));
        assert_eq!(field(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None, "it does not fit");
    }

    #[test]
    fn times_have_a_sign_and_a_fraction() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        assert_eq!(time(b""), None);
        assert_eq!(time(b"1.x"), None);
        assert_eq!(decimal(b"18446744073709551616"), None);
    }
}
