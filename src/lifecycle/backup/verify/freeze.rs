//! Makes `pg_restore` load rows with `COPY … (FREEZE)`: they are visible at once, so the first reads after the load do
//! not rewrite every page. PostgreSQL allows this for tables that the same transaction creates, as a restore with
//! `--single-transaction` does.
//!
//! The statements stand in the archive's table of contents. Its format is that of `pg_dump -Fc`, versions 1.15 and
//! 1.16 (`ReadHead` and `ReadToc` in PostgreSQL's `pg_backup_archiver.c`): integers are a sign and little-endian
//! bytes, strings a length and bytes, with a negative length for none.

use std::io::{self, Read};

/// The begin of the archive format.
const MAGIC: &[u8] = b"PGDMP";
/// The format for a dump in one file.
const CUSTOM_FORMAT: u8 = 1;
/// Bytes of an integer, without its sign.
const INT_SIZE: u8 = 4;
/// Integers of the creation time.
const TIME_FIELDS: usize = 7;
/// Maximum number of bytes of a table of contents. A longer one is passed on unchanged.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The end of a copy statement, as `pg_dump` writes it and as it is passed on.
const COPY_END: &[u8] = b" FROM stdin;\n";
const FREEZE_END: &[u8] = b" FROM stdin WITH (FREEZE);\n";

/// The begin of an archive, up to the data.
pub struct Contents {
    /// Number of bytes that were read from the archive.
    pub read: usize,
    /// The bytes for `pg_restore`: with changed copy statements, or as read if the format is another.
    pub bytes: Vec<u8>,
}

/// Reads the table of contents of an archive. The caller passes on `Contents::bytes` and the rest of `archive`.
///
/// # Errors
/// Only those of `archive` itself. An archive that ends early or has another format is left to `pg_restore`.
pub fn with_freeze(archive: &mut impl Read) -> io::Result<Contents> {
    let mut parser = Parser { archive, read: Vec::new(), passed_on: 0, changed: Vec::new() };
    match parser.contents() {
        Ok(()) => {
            parser.pass_on();
            Ok(Contents { read: parser.read.len(), bytes: parser.changed })
        }
        Err(Stop::Unknown) => Ok(Contents { read: parser.read.len(), bytes: parser.read }),
        Err(Stop::Io(error)) => Err(error),
    }
}

/// Why the parser stopped.
enum Stop {
    /// The archive has a format that the parser does not know.
    Unknown,
    Io(io::Error),
}

struct Parser<'a, R> {
    archive: &'a mut R,
    /// Bytes as read.
    read: Vec<u8>,
    /// Number of bytes of `read` whose result is in `changed`.
    passed_on: usize,
    changed: Vec<u8>,
}

impl<R: Read> Parser<'_, R> {
    fn contents(&mut self) -> Result<(), Stop> {
        if self.take(MAGIC.len())? != MAGIC {
            return Err(Stop::Unknown);
        }
        let [major, minor, _revision, int_size, offset_size, format, _compression] = self.array()?;
        if major != 1 || !(15..=16).contains(&minor) || int_size != INT_SIZE || format != CUSTOM_FORMAT {
            return Err(Stop::Unknown);
        }
        for _ in 0..TIME_FIELDS {
            self.int()?;
        }
        for _database_and_versions in 0..3 {
            self.string()?;
        }
        for _ in 0..self.int()? {
            self.entry(minor >= 16, usize::from(offset_size))?;
        }
        Ok(())
    }

    /// Reads an entry of the table of contents.
    fn entry(&mut self, has_relkind: bool, offset_size: usize) -> Result<(), Stop> {
        for _id_and_data in 0..2 {
            self.int()?;
        }
        for _oids_tag_and_description in 0..4 {
            self.string()?;
        }
        let _section = self.int()?;
        let definition = self.string()?;
        let _drop = self.string()?;
        // Rows of a partition that are loaded through the partitioned table have a comment here. PostgreSQL refuses the
        // option for them.
        match definition.is_none_or(|range| range.is_empty()) {
            true => self.copy_statement()?,
            false => self.string().map(drop)?,
        }
        for _schema_tablespace_and_method in 0..3 {
            self.string()?;
        }
        if has_relkind {
            self.int()?;
        }
        for _owner_and_oids in 0..2 {
            self.string()?;
        }
        while self.string()?.is_some() {}
        self.take(1 + offset_size)?;
        Ok(())
    }

    fn copy_statement(&mut self) -> Result<(), Stop> {
        self.pass_on();
        let Some(range) = self.string()? else { return Ok(()) };
        let Some(begin) = self.read[range].strip_suffix(COPY_END) else { return Ok(()) };
        let length = u32::try_from(begin.len() + FREEZE_END.len()).map_err(|_| Stop::Unknown)?;
        self.changed.push(0);
        self.changed.extend(length.to_le_bytes());
        self.changed.extend(begin);
        self.changed.extend(FREEZE_END);
        self.passed_on = self.read.len();
        Ok(())
    }

    /// Appends what was read since the last call to `changed`.
    fn pass_on(&mut self) {
        self.changed.extend(&self.read[self.passed_on..]);
        self.passed_on = self.read.len();
    }

    /// Reads a string. Returns where it stands in `read`, or `None` for no string.
    fn string(&mut self) -> Result<Option<std::ops::Range<usize>>, Stop> {
        let Ok(length) = usize::try_from(self.int()?) else { return Ok(None) };
        self.take(length)?;
        Ok(Some(self.read.len() - length..self.read.len()))
    }

    fn int(&mut self) -> Result<i64, Stop> {
        let bytes = self.take(1 + usize::from(INT_SIZE))?;
        let value = bytes[1..].iter().rev().fold(0, |value, byte| value << 8 | i64::from(*byte));
        Ok(if bytes[0] == 0 { value } else { -value })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.take(N)?.try_into().map_err(|_| Stop::Unknown)
    }

    /// Reads the next `count` bytes.
    fn take(&mut self, count: usize) -> Result<&[u8], Stop> {
        let start = self.read.len();
        if count > MAX_BYTES - start {
            return Err(Stop::Unknown);
        }
        let copied = self.archive.by_ref().take(count as u64).read_to_end(&mut self.read).map_err(Stop::Io)?;
        if copied < count {
            return Err(Stop::Unknown);
        }
        Ok(&self.read[start..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes an archive with one entry for each copy statement, and data after the table of contents.
    fn archive(minor: u8, copies: &[Option<&str>]) -> Vec<u8> {
        archive_with(minor, "", copies)
    }

    fn archive_with(minor: u8, definition: &str, copies: &[Option<&str>]) -> Vec<u8> {
        let mut bytes = [MAGIC, &[1, minor, 0, 4, 8, CUSTOM_FORMAT, 0]].concat();
        let int = |bytes: &mut Vec<u8>, value: i32| {
            bytes.push(u8::from(value < 0));
            bytes.extend(value.unsigned_abs().to_le_bytes());
        };
        let string = |bytes: &mut Vec<u8>, text: Option<&str>| match text {
            Some(text) => {
                int(bytes, i32::try_from(text.len()).unwrap());
                bytes.extend(text.as_bytes());
            }
            None => int(bytes, -1),
        };
        let strings = |bytes: &mut Vec<u8>, texts: &[Option<&str>]| texts.iter().for_each(|text| string(bytes, *text));
        (0..7).for_each(|field| int(&mut bytes, field));
        strings(&mut bytes, &[Some("leoflow"), Some("18.4"), Some("18.4")]);
        int(&mut bytes, i32::try_from(copies.len()).unwrap());
        for copy in copies {
            (0..2).for_each(|value| int(&mut bytes, value));
            strings(&mut bytes, &[Some("0"), Some("0"), Some("dag"), Some("TABLE DATA")]);
            int(&mut bytes, 3);
            strings(&mut bytes, &[Some(definition), None, *copy, Some("public"), None, Some("heap")]);
            if minor >= 16 {
                int(&mut bytes, 114);
            }
            strings(&mut bytes, &[Some("leoflow"), Some("false"), Some("17"), None]);
            bytes.extend([1; 9]);
        }
        bytes.extend(b"data");
        bytes
    }

    const COPY: &str = "COPY public.dag (id, \" FROM stdin;\n\") FROM stdin;\n";
    const FREEZE: &str = "COPY public.dag (id, \" FROM stdin;\n\") FROM stdin WITH (FREEZE);\n";

    #[test]
    fn adds_the_option_to_copy_statements_only() {
        for minor in [15, 16] {
            let other = Some("SELECT 1;\n");
            let bytes = archive(minor, &[Some(COPY), None, other, Some(COPY)]);
            let mut rest = bytes.as_slice();
            let contents = with_freeze(&mut rest).unwrap();
            assert_eq!(
                contents.bytes,
                archive(minor, &[Some(FREEZE), None, other, Some(FREEZE)])[..contents.bytes.len()]
            );
            assert_eq!((rest, contents.read), (b"data".as_slice(), bytes.len() - 4));
        }
    }

    #[test]
    fn leaves_rows_that_are_loaded_through_a_partitioned_table() {
        let bytes = archive_with(16, "-- load via partition root public.root", &[Some(COPY)]);
        let contents = with_freeze(&mut bytes.as_slice()).unwrap();
        assert_eq!(contents.bytes, bytes[..bytes.len() - 4]);
    }

    #[test]
    fn passes_on_what_it_cannot_read() {
        let known = archive(16, &[Some(COPY)]);
        let mut long = known.clone();
        // The length of the database's name.
        long[48..52].copy_from_slice(&i32::MAX.to_le_bytes());
        let cut = known[..known.len() - 20].to_vec();
        for bytes in [archive(17, &[Some(COPY)]), archive(14, &[Some(COPY)]), long, cut, b"PGDMP".to_vec(), Vec::new()]
        {
            let mut rest = bytes.as_slice();
            let contents = with_freeze(&mut rest).unwrap();
            assert_eq!([&contents.bytes, rest].concat(), bytes);
            assert_eq!(contents.read, contents.bytes.len());
        }
    }
}
