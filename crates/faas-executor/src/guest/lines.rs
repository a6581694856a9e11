//! What comes in pieces as lines, none of which is longer than anybody needs. No I/O.

/// The longest line: of an entry with three paths, none of whose bytes is text.
pub(crate) const MAX_LINE_BYTES: usize = 64 << 10;

/// Bytes that have come and were not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
    /// How many of them are known to have no end of a line.
    looked_at: usize,
}

/// A line that has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Lines {
    /// Takes in more. Only where [`Lines::next_line`] had none.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line, without its end, where it is whole.
    pub(crate) fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let Some(at) = self.bytes[self.looked_at..].iter().position(|byte| *byte == b'\n') else {
            self.looked_at = self.bytes.len();
            return if self.looked_at > MAX_LINE_BYTES { Err(TooLong) } else { Ok(None) };
        };
        let end = self.looked_at + at;
        let rest = self.bytes.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.bytes, rest);
        line.truncate(end);
        self.looked_at = 0;
        if end > MAX_LINE_BYTES { Err(TooLong) } else { Ok(Some(line)) }
    }

    /// All that there is, as it came.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.looked_at = 0;
        std::mem::take(&mut self.bytes)
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Lines, MAX_LINE_BYTES, TooLong};

    proptest! {
        #[test]
        fn lines_come_out_as_they_went_in(
            lines in prop::collection::vec("[a-z]{0,50}", 0..20),
            piece in 1usize..40,
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let (mut reader, mut found) = (Lines::default(), Vec::new());
            for bytes in text.as_bytes().chunks(piece) {
                reader.push(bytes);
                while let Some(line) = reader.next_line().unwrap() {
                    found.push(String::from_utf8(line).unwrap());
                }
            }
            prop_assert_eq!(found, lines);
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_LINE_BYTES]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"x");
        assert_eq!(lines.next_line(), Err(TooLong));
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_LINE_BYTES + 1]);
        lines.push(b"\n");
        assert_eq!(lines.next_line(), Err(TooLong));
    }

    #[test]
    fn what_comes_after_a_line_is_there_as_it_came() {
        let mut lines = Lines::default();
        lines.push(b"first\n\0rest\nmore");
        assert_eq!(lines.next_line(), Ok(Some(b"first".to_vec())));
        assert_eq!(lines.take(), b"\0rest\nmore");
        lines.push(b"x\n");
        assert_eq!(lines.next_line(), Ok(Some(b"x".to_vec())));
    }
}
