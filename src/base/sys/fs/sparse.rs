//! Sparse files: their holes are blocks of zeros that take no disk space.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};

/// Size of a block in bytes, as in most file systems. The backup format depends on it, because `stored` counts blocks.
const BLOCK_SIZE: usize = 4096;
static ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// A block that was read. Only the last one of a file may be shorter than the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    Data,
    /// It contains only zeros.
    Hole,
    /// There is no further block.
    End,
}

/// Reads the next block of a file into `block`; `source` starts at the beginning of a block.
pub fn read_block(source: &mut impl Read, block: &mut Vec<u8>) -> io::Result<Block> {
    block.clear();
    match source.take(BLOCK_SIZE as u64).read_to_end(block)? {
        0 => Ok(Block::End),
        count if block[..] == ZEROS[..count] => Ok(Block::Hole),
        _ => Ok(Block::Data),
    }
}

/// True when a file takes less disk space than its length.
pub fn is_sparse(meta: &Metadata) -> bool {
    meta.blocks().saturating_mul(512) < meta.len()
}

/// Writes a new file with holes in the place of zeros. Fails with `InvalidData` before the other blocks of `source`
/// exceed `limit` bytes.
pub fn write(mut source: impl Read, target: &File, limit: u64) -> io::Result<()> {
    let (mut length, mut stored, mut block) = (0, 0, Vec::with_capacity(BLOCK_SIZE));
    loop {
        match read_block(&mut source, &mut block)? {
            Block::Data => {
                stored += block.len() as u64;
                if stored > limit {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the content exceeds its limit"));
                }
                target.write_all_at(&block, length)?;
            }
            Block::Hole => {}
            // Nothing was written for a hole at the end.
            Block::End => return target.set_len(length),
        }
        length += block.len() as u64;
    }
}

/// Copies a file into a new one and keeps its holes.
pub fn copy(source: &mut File, target: &mut File) -> io::Result<()> {
    match is_sparse(&source.metadata()?) {
        true => write(io::BufReader::new(source), target, u64::MAX),
        // The kernel copies, which can share blocks but may fill holes.
        false => io::copy(source, target).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MIB: u64 = 1024 * 1024;

    /// Writes data at offsets of a new file, which is read from its beginning.
    fn sparse_file(path: &std::path::Path, length: u64, data: &[(u64, &[u8])]) -> File {
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(length).unwrap();
        data.iter().for_each(|(offset, bytes)| file.write_all_at(bytes, *offset).unwrap());
        file
    }

    #[test]
    fn a_copy_keeps_content_and_holes() {
        let folder = tempfile::tempdir().unwrap();
        let long = [b'x'; 10_000];
        for (number, (length, data)) in [
            (0, vec![]),
            (100, vec![]),
            (8 * MIB, vec![]),
            (8 * MIB + 1, vec![(4095, &long[..2])]),
            (8 * MIB, vec![(MIB + 5, &long[..]), (8 * MIB - 10_000, &long[..])]),
            (10_000, vec![(0, &long[..])]),
        ]
        .into_iter()
        .enumerate()
        {
            let paths = ["from", "to"].map(|name| folder.path().join(format!("{name}{number}")));
            let mut from = sparse_file(&paths[0], length, &data);
            let mut to = File::create_new(&paths[1]).unwrap();
            copy(&mut from, &mut to).unwrap();
            assert!(fs::read(&paths[0]).unwrap() == fs::read(&paths[1]).unwrap(), "{number}");
            if length < MIB || !is_sparse(&from.metadata().unwrap()) {
                eprintln!("skipped: file {number} has no holes here");
                continue;
            }
            let allocated = to.metadata().unwrap().blocks() * 512;
            assert!(allocated < MIB, "{number}: {allocated}");
        }
    }

    #[test]
    fn blocks_are_aligned_however_the_source_is_read() {
        /// Returns at most seven bytes at a time.
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = buffer.len().min(7);
                self.0.read(&mut buffer[..length])
            }
        }
        let mut content = vec![0; 3 * BLOCK_SIZE + 10];
        content[2 * BLOCK_SIZE - 1] = 1;
        let (mut source, mut block, mut blocks) = (Slow(&content), Vec::new(), Vec::new());
        loop {
            match read_block(&mut source, &mut block).unwrap() {
                Block::End => break,
                kind => blocks.push((kind, block.len())),
            }
        }
        let (hole, data) = ((Block::Hole, BLOCK_SIZE), (Block::Data, BLOCK_SIZE));
        assert_eq!(blocks, [hole, data, hole, (Block::Hole, 10)]);
    }

    #[test]
    fn content_over_the_limit_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content = [b'x'; 2 * BLOCK_SIZE];
        let limit = BLOCK_SIZE as u64;
        let refused = write(&content[..], &File::create_new(&path).unwrap(), limit).unwrap_err();
        assert_eq!((refused.kind(), fs::metadata(&path).unwrap().len()), (io::ErrorKind::InvalidData, limit));
        write(&content[..], &File::create(&path).unwrap(), content.len() as u64).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}
