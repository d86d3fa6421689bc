//! Makes `pg_restore` load rows with `COPY … (FREEZE)`: they are visible at once, so the first reads after the load do
//! not rewrite every page. PostgreSQL allows this for plain tables that the same transaction creates. `survey` admits
//! only permanent plain tables to a backup, and `pg_restore` runs with `--single-transaction`.
//!
//! The statements stand in the archive's table of contents. Its format is that of `pg_dump -Fc` of PostgreSQL 17 and
//! 18, version 1.16 (`ReadHead` and `ReadToc` in PostgreSQL's `pg_backup_archiver.c`): integers are a sign and
//! little-endian bytes, strings a length and bytes, with a negative length for none.

use std::io::{self, Read};

/// Start of an archive.
const MAGIC: &[u8] = b"PGDMP";
/// Version of the archive format.
const VERSION: [u8; 2] = [1, 16];
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

/// The part of an archive before the rows.
pub struct Head {
    /// Number of bytes that were read from the archive.
    pub input_length: usize,
    /// The bytes for `pg_restore`: with changed copy statements, or as read if the format is another.
    pub output: Vec<u8>,
}

/// Reads an archive up to the end of its table of contents. The caller passes on `Head::output` and the rest of
/// `archive`.
///
/// # Errors
/// Only those of `archive` itself. An archive that ends early or has another format is left to `pg_restore`.
pub fn with_freeze(archive: &mut impl Read) -> io::Result<Head> {
    let mut parser = Parser { archive, input: Vec::new(), copied: 0, output: Vec::new() };
    match parser.head() {
        Ok(()) => {
            parser.copy_unchanged();
            Ok(Head { input_length: parser.input.len(), output: parser.output })
        }
        Err(Stop::UnknownFormat) => Ok(Head { input_length: parser.input.len(), output: parser.input }),
        Err(Stop::Io(error)) => Err(error),
    }
}

/// Why the parser stopped.
enum Stop {
    UnknownFormat,
    Io(io::Error),
}

struct Parser<'a, R> {
    archive: &'a mut R,
    /// The bytes read so far.
    input: Vec<u8>,
    /// Number of bytes of `input` that `output` contains, changed or not.
    copied: usize,
    output: Vec<u8>,
}

impl<R: Read> Parser<'_, R> {
    fn head(&mut self) -> Result<(), Stop> {
        if self.take(MAGIC.len())? != MAGIC {
            return Err(Stop::UnknownFormat);
        }
        let [major, minor, _revision, int_size, offset_size, format, _compression] = self.array()?;
        if [major, minor] != VERSION || int_size != INT_SIZE || format != CUSTOM_FORMAT {
            return Err(Stop::UnknownFormat);
        }
        for _ in 0..TIME_FIELDS {
            self.int()?;
        }
        for _database_and_versions in 0..3 {
            self.string()?;
        }
        for _ in 0..self.int()? {
            self.entry(usize::from(offset_size))?;
        }
        Ok(())
    }

    /// Reads an entry of the table of contents.
    fn entry(&mut self, offset_size: usize) -> Result<(), Stop> {
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
        let _relation_kind = self.int()?;
        for _owner_and_oids in 0..2 {
            self.string()?;
        }
        while self.string()?.is_some() {}
        self.take(1 + offset_size)?;
        Ok(())
    }

    fn copy_statement(&mut self) -> Result<(), Stop> {
        self.copy_unchanged();
        let Some(range) = self.string()? else { return Ok(()) };
        let Some(start) = self.input[range].strip_suffix(COPY_END) else { return Ok(()) };
        let length = i32::try_from(start.len() + FREEZE_END.len()).map_err(|_| Stop::UnknownFormat)?;
        self.output.push(0);
        self.output.extend(length.to_le_bytes());
        self.output.extend(start);
        self.output.extend(FREEZE_END);
        self.copied = self.input.len();
        Ok(())
    }

    /// Appends what was read since the last change to `output`.
    fn copy_unchanged(&mut self) {
        self.output.extend(&self.input[self.copied..]);
        self.copied = self.input.len();
    }

    /// Reads a string. Returns where it stands in `input`, or `None` for no string.
    fn string(&mut self) -> Result<Option<std::ops::Range<usize>>, Stop> {
        let Ok(length) = usize::try_from(self.int()?) else { return Ok(None) };
        self.take(length)?;
        Ok(Some(self.input.len() - length..self.input.len()))
    }

    fn int(&mut self) -> Result<i32, Stop> {
        let [sign, bytes @ ..]: [u8; 1 + INT_SIZE as usize] = self.array()?;
        // PostgreSQL's result for a larger number is another.
        let value = i32::try_from(u32::from_le_bytes(bytes)).map_err(|_| Stop::UnknownFormat)?;
        Ok(if sign == 0 { value } else { -value })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.take(N)?.try_into().map_err(|_| Stop::UnknownFormat)
    }

    /// Reads the next `count` bytes.
    fn take(&mut self, count: usize) -> Result<&[u8], Stop> {
        let start = self.input.len();
        if count > MAX_BYTES - start {
            return Err(Stop::UnknownFormat);
        }
        let read = self.archive.by_ref().take(count as u64).read_to_end(&mut self.input).map_err(Stop::Io)?;
        if read < count {
            return Err(Stop::UnknownFormat);
        }
        Ok(&self.input[start..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(bytes: &mut Vec<u8>, value: i32) {
        bytes.push(u8::from(value < 0));
        bytes.extend(value.unsigned_abs().to_le_bytes());
    }

    fn strings(bytes: &mut Vec<u8>, texts: &[Option<&str>]) {
        for text in texts {
            int(bytes, text.map_or(-1, |text| i32::try_from(text.len()).unwrap()));
            bytes.extend(text.unwrap_or_default().as_bytes());
        }
    }

    /// An entry of the table of contents with these definition and copy statement.
    type Entry<'a> = (Option<&'a str>, Option<&'a str>);

    /// Writes an archive: its head and `ROWS`.
    fn archive(minor: u8, database: &str, entries: &[Entry]) -> Vec<u8> {
        let mut bytes = [MAGIC, &[1, minor, 0, 4, 8, CUSTOM_FORMAT, 0]].concat();
        (0..7).for_each(|field| int(&mut bytes, field));
        strings(&mut bytes, &[Some(database), Some("18.4"), Some("18.4")]);
        int(&mut bytes, i32::try_from(entries.len()).unwrap());
        for (definition, copy) in entries {
            (0..2).for_each(|value| int(&mut bytes, value));
            strings(&mut bytes, &[Some("0"), Some("0"), Some("dag"), Some("TABLE DATA")]);
            int(&mut bytes, 3);
            strings(&mut bytes, &[*definition, None, *copy, Some("public"), None, Some("heap")]);
            int(&mut bytes, 114);
            strings(&mut bytes, &[Some("leoflow"), Some("false"), Some("17"), None]);
            bytes.extend([1; 9]);
        }
        bytes.extend(ROWS);
        bytes
    }

    const ROWS: &[u8] = b"rows";
    const COPY: &str = "COPY public.dag (id, \" FROM stdin;\n\") FROM stdin;\n";
    const FREEZE: &str = "COPY public.dag (id, \" FROM stdin;\n\") FROM stdin WITH (FREEZE);\n";

    /// Returns what `pg_restore` gets of an archive.
    fn passed_on(archive: &[u8]) -> Vec<u8> {
        let mut rest = archive;
        let head = with_freeze(&mut rest).unwrap();
        assert_eq!(head.input_length + rest.len(), archive.len());
        [&head.output, rest].concat()
    }

    #[test]
    fn adds_the_option_to_copy_statements_only() {
        let entries = |copy| [(None, Some(copy)), (None, None), (None, Some("SELECT 1;\n")), (Some(""), Some(copy))];
        let expected = archive(16, "leoflow", &entries(FREEZE));
        assert_eq!(passed_on(&archive(16, "leoflow", &entries(COPY))), expected);
    }

    #[test]
    fn leaves_rows_that_are_loaded_through_a_partitioned_table() {
        let bytes = archive(16, "leoflow", &[(Some("-- load via partition root public.root"), Some(COPY))]);
        assert_eq!(passed_on(&bytes), bytes);
    }

    #[test]
    fn passes_on_what_it_cannot_read() {
        let entries: &[Entry] = &[(None, Some(COPY))];
        let known = archive(16, "leoflow", entries);
        let with_length = |sign: u8, length: u32| {
            let mut bytes = known.clone();
            // The length of the database's name.
            bytes[47] = sign;
            bytes[48..52].copy_from_slice(&length.to_le_bytes());
            bytes
        };
        assert_eq!(with_length(0, 7), known);
        let cut = known[..known.len() - 20].to_vec();
        let long = archive(16, &"x".repeat(MAX_BYTES), entries);
        let others = [archive(17, "leoflow", entries), archive(15, "leoflow", entries), long, cut];
        let lengths = [with_length(0, i32::MAX as u32), with_length(1, 0x8000_0001)];
        for bytes in others.into_iter().chain(lengths).chain([b"PGDMP".to_vec(), Vec::new()]) {
            assert!(passed_on(&bytes) == bytes, "{:?}", &bytes[..bytes.len().min(100)]);
        }
    }

    #[test]
    fn a_negative_number_of_entries_means_none() {
        let mut bytes = archive(16, "leoflow", &[]);
        let count = bytes.len() - ROWS.len() - 5;
        bytes[count..count + 2].copy_from_slice(&[1, 9]);
        assert_eq!(passed_on(&bytes), bytes);
    }
}
