//! The records of PAX extended headers: `LENGTH KEY=VALUE\n`, again and again.

use super::number;
use super::reader::TarError;

/// The records of one entry, in order.
#[derive(Debug, Default)]
pub(super) struct Extensions(Vec<(Vec<u8>, Vec<u8>)>);

impl Extensions {
    /// Adds the records in `bytes`.
    pub(super) fn parse(&mut self, mut bytes: &[u8]) -> Result<(), TarError> {
        const MALFORMED: TarError = TarError::Malformed("an extended header");
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ').ok_or(MALFORMED)?;
            let len = number::decimal(&bytes[..space]).and_then(|len| usize::try_from(len).ok());
            let len = len.filter(|len| *len > space + 1 && *len <= bytes.len()).ok_or(MALFORMED)?;
            let (record, rest) = bytes.split_at(len);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or(MALFORMED)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
            self.0.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = rest;
        }
        Ok(())
    }

    /// The last value of `key`: later records replace earlier ones.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    }

    /// All values of `key`.
    pub(super) fn all(&self, key: &[u8]) -> Vec<&[u8]> {
        self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_slice()).collect()
    }

    /// The extended attributes (the key is that of star(1), which everybody else took over).
    pub(super) fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let attribute = |(key, value): &(Vec<u8>, Vec<u8>)| {
            Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone()))
        };
        self.0.iter().filter_map(attribute).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Extensions;

    #[test]
    fn records_are_read_and_the_last_one_counts() {
        let mut extensions = Extensions::default();
        extensions.parse(b"12 path=a/b\n14 path=a\nb=c\n29 SCHILY.xattr.user.k=v\0w\n\n\n").unwrap();
        assert_eq!(extensions.get(b"path"), Some(b"a\nb=c".as_slice()));
        assert_eq!(extensions.xattrs(), [(b"user.k".to_vec(), b"v\0w\n\n".to_vec())]);
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        for bytes in [
            b"999 path=a\n".as_slice(),
            b"0 path=a\n",
            b"2 path=a\n",
            b"11 path=a/b\n",
            b"-1 path=a\n",
            b"path",
            b"18446744073709551615 a=b\n",
            b"7 path\n\0",
        ] {
            assert!(Extensions::default().parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
