//! Random operations, one after the other, against a plain vector: whatever the variant, one thread must see no
//! difference (with one exception: without a lock, not even a direct write from a mapping of its own pages is safe).

use fastrand::Rng;

use super::{P, check_at_rest, contents, file};
use crate::cache::File;
use crate::direct::Source;
use crate::file_lock::Variant;
use crate::mapping::Mapping;
use std::sync::Arc;

/// Files of this test stay below so many pages.
const PAGES: u64 = 24;

/// One random operation on both; its name.
fn step(file: &Arc<File>, model: &mut Vec<u8>, random: &mut Rng, number: u32) -> &'static str {
    let size = model.len() as u64;
    let at = random.u64(..=size.min((PAGES - 4) * P));
    let length = random.usize(1..3 * P as usize);
    let bytes: Vec<u8> = (0..length).map(|index| (number as usize + index / 97) as u8 | 1).collect();
    let page = at / P * P;
    match random.u8(..13) {
        0 => {
            file.write(at, &bytes).unwrap();
            put(model, at, &bytes);
            "write"
        }
        1 => {
            let sectors = &bytes[..length / 512 * 512];
            file.write_direct(at / 512 * 512, Source::Memory(sectors)).unwrap();
            put(model, at / 512 * 512, sectors);
            "direct write"
        }
        2 => {
            let mut read = vec![0; length / 512 * 512];
            let count = file.read_direct(at / 512 * 512, &mut read).unwrap();
            let start = (at / 512 * 512) as usize;
            assert!(read[..count] == model[start..model.len().min(start + read.len())], "direct read");
            "direct read"
        }
        3 if at < size => {
            let length = length.min((size - at) as usize);
            Mapping::new(file, at, length).write(0, &bytes[..length]).unwrap();
            put(model, at, &bytes[..length]);
            "mapped write"
        }
        4 => {
            let to = random.u64(..PAGES * P);
            assert_eq!(file.truncate(to).unwrap(), 0);
            model.resize(to as usize, 0);
            "truncate"
        }
        5 | 6 => {
            let end = (at as usize + length).min(model.len());
            let at = at as usize;
            if random.bool() { file.punch(at as u64, length as u64) } else { file.zero(at as u64, length as u64) }
                .unwrap();
            model[at.min(end)..end].fill(0);
            "zeros"
        }
        7 if page + P < size => {
            file.collapse(page, P).unwrap();
            model.drain(page as usize..(page + P) as usize);
            "collapse"
        }
        8 if page < size && size + P < PAGES * P => {
            file.insert(page, P).unwrap();
            model.splice(page as usize..page as usize, vec![0; P as usize]);
            "insert"
        }
        9 if size < (PAGES - 4) * P => {
            assert_eq!(file.append(&bytes).unwrap(), size);
            model.extend(&bytes);
            "append"
        }
        10 => {
            file.flush().unwrap();
            "flush"
        }
        11 => {
            assert_eq!(file.evict_all().unwrap(), 0);
            "evict"
        }
        // Without a lock the write's own faults leave stale pages behind, even of a single thread (race 8).
        _ if size >= 4 * P && file.lock.variant() != Variant::None => {
            // From another place of the file itself, which may be the same.
            let from = random.u64(..=size - 2 * P);
            let copy = model[from as usize..(from + 2 * P) as usize].to_vec();
            let at = at / 512 * 512;
            file.write_direct(at, Source::Mapped(&Mapping::new(file, from, copy.len()))).unwrap();
            put(model, at, &copy);
            "direct write from itself"
        }
        _ => "nothing",
    }
}

fn put(model: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let (at, end) = (at as usize, at as usize + bytes.len());
    if !bytes.is_empty() {
        model.resize(model.len().max(end), 0);
        model[at..end].copy_from_slice(bytes);
    }
}

#[test]
fn one_thread_sees_a_plain_file_under_each_variant() {
    for (seed, variant) in (1..).zip(Variant::ALL) {
        let file = file(variant, 0);
        let mut model = Vec::new();
        let mut random = Rng::with_seed(seed);
        for number in 0..400 {
            let name = step(&file, &mut model, &mut random, number);
            assert_eq!(file.size(), model.len() as u64, "{variant:?}: {number}, {name}");
            let found = contents(&file);
            let first = found.iter().zip(&model).position(|(found, expected)| found != expected);
            assert_eq!(first, None, "{variant:?}: operation {number}, {name}: the first byte that differs");
            if number % 40 == 0 {
                check_at_rest(&file);
            }
        }
        check_at_rest(&file);
        assert_eq!(file.retries(), 0);
    }
}
