//! Tar streams, honest and hostile.

/// A tar stream that is being written.
#[derive(Clone, Default)]
pub(crate) struct Layer(Vec<u8>);

/// One entry.
#[derive(Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) kind: u8,
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) data: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: u64,
}

impl Default for Item<'_> {
    fn default() -> Self {
        Self { kind: b'0', name: b"", link: b"", data: b"", mode: 0o644, owner: (0, 0), mtime: 1_000_000_000 }
    }
}

fn number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    if text.len() <= digits {
        field[..digits].copy_from_slice(text.as_bytes());
    } else {
        let bytes = value.to_be_bytes();
        let start = field.len() - bytes.len().min(field.len());
        let kept = field.len() - start;
        field[start..].copy_from_slice(&bytes[bytes.len() - kept..]);
        field[0] |= 0x80;
    }
}

impl Layer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn item(mut self, item: Item<'_>) -> Self {
        if item.name.len() > 100 {
            self = self.raw(b'L', b"././@LongLink", item.name);
        }
        if item.link.len() > 100 {
            self = self.raw(b'K', b"././@LongLink", item.link);
        }
        self.header(&item, item.data.len() as u64);
        self.0.extend_from_slice(item.data);
        self.pad();
        self
    }

    fn raw(mut self, kind: u8, name: &[u8], data: &[u8]) -> Self {
        self.header(&Item { kind, name, data, ..Item::default() }, data.len() as u64);
        self.0.extend_from_slice(data);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    /// A header alone, whatever comes after it.
    pub(crate) fn header(&mut self, item: &Item<'_>, size: u64) {
        let mut block = [0u8; 512];
        let name = &item.name[..item.name.len().min(100)];
        block[..name.len()].copy_from_slice(name);
        let link = &item.link[..item.link.len().min(100)];
        block[157..157 + link.len()].copy_from_slice(link);
        number(&mut block[100..108], item.mode.into());
        number(&mut block[108..116], item.owner.0);
        number(&mut block[116..124], item.owner.1);
        number(&mut block[124..136], size);
        number(&mut block[136..148], item.mtime);
        block[156] = item.kind;
        block[257..265].copy_from_slice(b"ustar  \0");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
    }

    /// PAX records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while len.to_string().len() + rest != len {
                len = len.to_string().len() + rest;
            }
            data.extend_from_slice(format!("{len} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(b'x', b"pax", &data)
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.item(Item { name: name.as_bytes(), data: data.as_bytes(), ..Item::default() })
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.item(Item { kind: b'5', name: name.as_bytes(), mode, ..Item::default() })
    }

    pub(crate) fn symlink(self, name: &str, link: &str) -> Self {
        self.item(Item {
            kind: b'2',
            name: name.as_bytes(),
            link: link.as_bytes(),
            mode: 0o777,
            ..Item::default()
        })
    }

    pub(crate) fn hard_link(self, name: &str, link: &str) -> Self {
        self.item(Item { kind: b'1', name: name.as_bytes(), link: link.as_bytes(), ..Item::default() })
    }

    /// The stream so far, without an end.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.0
    }

    /// The whole stream.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}
