//! What is written in the store: names of keys, and what a request says of itself.
//!
//! ```text
//! PREFIXlock/NAME/PATH.LEASE-NUMBER-PART    a part of a request, filed under its block
//! PREFIXowner/LEASE-OWNER/LEASE-NUMBER      the same request, found by its owner (only for a token, which may have several)
//! ```
//! The value is the whole request, the same at each of its keys, in a form that `etcdctl get --prefix` shows to people:
//! ```text
//! v1 by 0 parts B:0:4095:volume-7%2Finode-42
//! v1 by 3:transfer parts X:7:7:accounts,X:9:9:accounts passes 7f1-2
//! ```
//! All keys of a request are made in one transaction, so that they have one create revision: its place in the queue. Or
//! it says `gone`: the request has been given up, and if its transaction is still on its way, this is to stop it.

use crate::block;
use crate::store::{KeyRange, KeyValue, Revision};
use spanlock::{ByteRange, Mode};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The value of a key that stands for nobody.
pub(crate) const GONE: &str = "gone";

/// The longest name of a lock, as it is written.
const LONGEST: usize = 1024;

/// `name` as a part of a key: whatever is not a letter, a digit, `-`, `_` or a dot inside is written as `%` and two
/// digits. (So no name holds a slash, and none begins another's keys.)
pub(crate) fn escape(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The name that [`escape`] made that of.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits = |rest: &mut std::str::Bytes<'_>| {
            let pair = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()
        };
        bytes.push(if byte == b'%' { digits(&mut rest)? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

/// `name` as it is written, or why it cannot be.
pub(crate) fn check_name(name: &str) -> Result<String, &'static str> {
    let escaped = escape(name);
    match escaped.len() {
        0 => Err("it is empty"),
        length if length > LONGEST => Err("it is longer than 1024 bytes, as it is written"),
        _ => Ok(escaped),
    }
}

/// Which request: the session's lease, and a number that the session uses once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    pub(crate) lease: i64,
    pub(crate) number: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.lease, self.number)
    }
}

impl RequestId {
    fn parse(text: &str) -> Option<RequestId> {
        let (lease, number) = text.split_once('-')?;
        Some(RequestId { lease: i64::from_str_radix(lease, 16).ok()?, number: number.parse().ok()? })
    }
}

/// Whose request it is: of a token of a session, or of nobody but itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId {
    pub(crate) lease: i64,
    /// The token's number in its session; of a request on its own, the request's.
    pub(crate) number: u64,
    pub(crate) is_token: bool,
}

/// `session 7f1, owner 3` or `session 7f1, request 12`: sessions go by their leases.
impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_token { "owner" } else { "request" };
        write!(f, "session {:x}, {kind} {}", self.lease, self.number)
    }
}

/// A range of a lock, in a mode.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) mode: Letter,
    /// The lock's name as it is written.
    pub(crate) lock: String,
}

/// A mode as it is written. (`Mode` has no order of its own.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Letter {
    A,
    B,
    X,
}

impl From<Mode> for Letter {
    fn from(mode: Mode) -> Letter {
        match mode {
            Mode::Add => Letter::A,
            Mode::Block => Letter::B,
            Mode::Exclusive => Letter::X,
        }
    }
}

impl From<Letter> for Mode {
    fn from(letter: Letter) -> Mode {
        match letter {
            Letter::A => Mode::Add,
            Letter::B => Mode::Block,
            Letter::X => Mode::Exclusive,
        }
    }
}

impl Part {
    pub(crate) fn range(&self) -> ByteRange {
        ByteRange::new(self.first..=self.last)
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode.into()
    }

    /// Whether the two share a byte of one lock in modes that do not go together.
    pub(crate) fn meets(&self, other: &Part) -> bool {
        self.lock == other.lock && self.range().overlaps(other.range()) && !self.mode().goes_with(other.mode())
    }
}

/// What a request says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The token's number in its session; 0 if there is none.
    pub(crate) token: u64,
    /// What the token is called.
    pub(crate) name: String,
    pub(crate) parts: Vec<Part>,
    /// Requests that came before and that this one was let past.
    pub(crate) passes: BTreeSet<RequestId>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1 by {}", self.token)?;
        if !self.name.is_empty() {
            write!(f, ":{}", escape(&self.name))?;
        }
        f.write_str(" parts ")?;
        for (at, Part { first, last, mode, lock }) in self.parts.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{mode:?}:{first}:{last}:{lock}")?;
        }
        for (at, passed) in self.passes.iter().enumerate() {
            write!(f, "{}{passed}", if at == 0 { " passes " } else { "," })?;
        }
        Ok(())
    }
}

impl Record {
    pub(crate) fn parse(text: &str) -> Option<Record> {
        let mut words = text.split(' ');
        let mut word = |expected: &str| (words.next()? == expected).then(|| words.next())?;
        let by = word("v1").filter(|by| *by == "by").and_then(|_| words.next())?;
        let (token, name) = by.split_once(':').unwrap_or((by, ""));
        let mut record =
            Record { token: token.parse().ok()?, name: unescape(name)?, parts: Vec::new(), passes: BTreeSet::new() };
        while let Some(field) = words.next() {
            let mut items = words.next()?.split(',');
            match field {
                "parts" => record.parts = items.map(Part::parse).collect::<Option<_>>()?,
                "passes" => record.passes = items.map(RequestId::parse).collect::<Option<_>>()?,
                _ => items.by_ref().for_each(drop),
            }
        }
        (!record.parts.is_empty()).then_some(record)
    }
}

impl Part {
    fn parse(text: &str) -> Option<Part> {
        let mut fields = text.split(':');
        let mode = match fields.next()? {
            "A" => Letter::A,
            "B" => Letter::B,
            "X" => Letter::X,
            _ => return None,
        };
        let (first, last) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let lock = fields.next().filter(|lock| !lock.is_empty())?.to_string();
        (first <= last && fields.next().is_none()).then_some(Part { first, last, mode, lock })
    }
}

/// The names of keys below a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) prefix: String,
}

impl Keys {
    /// The prefix of all keys of a lock.
    pub(crate) fn lock(&self, escaped: &str) -> String {
        format!("{}lock/{escaped}/", self.prefix)
    }

    /// All keys of a lock.
    pub(crate) fn all_of(&self, escaped: &str) -> KeyRange {
        KeyRange { first: self.lock(escaped), end: format!("{}lock/{escaped}0", self.prefix) }
    }

    /// The index entries of all requests of a token.
    pub(crate) fn all_by(&self, lease: i64, token: u64) -> KeyRange {
        let owner = format!("{}owner/{lease:x}-{token}", self.prefix);
        KeyRange { first: format!("{owner}/"), end: format!("{owner}0") }
    }

    /// All keys of a request: those of its parts, then the index entry if it has one.
    pub(crate) fn of(&self, id: RequestId, record: &Record) -> Vec<String> {
        let part = |(at, part): (usize, &Part)| {
            format!("{}{}.{id}-{at}", self.lock(&part.lock), block::path(part.first, part.last))
        };
        let index = (record.token != 0).then(|| format!("{}owner/{:x}-{}/{id}", self.prefix, id.lease, record.token));
        record.parts.iter().enumerate().map(part).chain(index).collect()
    }

    /// What must be read to find whoever may be in the way of `parts`: at most `most` ranges.
    pub(crate) fn reads(&self, parts: &[Part], most: usize) -> Vec<KeyRange> {
        let narrow = |part: &Part| {
            let lock = self.lock(&part.lock);
            block::reads(&lock, &block::path(part.first, part.last)).collect::<Vec<_>>()
        };
        let ranges: BTreeSet<_> = parts.iter().flat_map(narrow).collect();
        if ranges.len() <= most {
            return ranges.into_iter().collect();
        }
        // More than a transaction takes: the locks as wholes.
        let locks: BTreeSet<_> = parts.iter().map(|part| &part.lock).collect();
        locks.into_iter().map(|lock| self.all_of(lock)).collect()
    }
}

/// A request as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: RequestId,
    /// One of its keys.
    pub(crate) key: String,
    /// Its place in the queue.
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
    pub(crate) record: Record,
}

impl Entry {
    /// `None`: the key stands for nobody.
    fn parse(kv: KeyValue) -> Result<Option<Entry>, String> {
        if kv.value == GONE {
            return Ok(None);
        }
        let file = kv.key.rsplit('/').next().unwrap_or_default();
        let number = match file.split_once('.') {
            Some((_, part)) => part.rsplit_once('-').map(|(id, _)| id),
            None => Some(file),
        };
        match (number.and_then(RequestId::parse), Record::parse(&kv.value)) {
            (Some(id), Some(record)) => {
                Ok(Some(Entry { id, key: kv.key, created: kv.created, modified: kv.modified, record }))
            }
            _ => Err(kv.key),
        }
    }

    pub(crate) fn owner(&self) -> OwnerId {
        match self.record.token {
            0 => OwnerId { lease: self.id.lease, number: self.id.number, is_token: false },
            number => OwnerId { lease: self.id.lease, number, is_token: true },
        }
    }

    /// Parts of the two that conflict: mine first.
    pub(crate) fn conflict<'e>(&'e self, other: &'e Entry) -> Option<(&'e Part, &'e Part)> {
        if self.owner() == other.owner() {
            return None;
        }
        let with = |mine: &'e Part| other.record.parts.iter().find(|its| mine.meets(its)).map(|its| (mine, its));
        self.record.parts.iter().find_map(with)
    }

    /// Whether this request waits for `other`: they conflict, and the other came first and was not passed, or was let
    /// past this one.
    pub(crate) fn waits_for(&self, other: &Entry) -> bool {
        let in_front = match other.record.passes.contains(&self.id) {
            true => true,
            false => other.created < self.created && !self.record.passes.contains(&other.id),
        };
        in_front && self.conflict(other).is_some()
    }
}

/// The requests that the keys stand for, each once; or the key that nobody can read.
pub(crate) fn entries(found: Vec<KeyValue>) -> Result<BTreeMap<RequestId, Entry>, String> {
    let mut entries = BTreeMap::new();
    for kv in found {
        if let Some(entry) = Entry::parse(kv)? {
            entries.entry(entry.id).or_insert(entry);
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let part = |first, last, mode, lock: &str| Part { first, last, mode, lock: escape(lock) };
        Record {
            token: 3,
            name: "a transfer, of: all".to_string(),
            parts: vec![part(0, u64::MAX, Letter::X, "a/b"), part(7, 7, Letter::A, "ä .")],
            passes: [RequestId { lease: i64::MAX, number: 1 }, RequestId { lease: 5, number: 9 }].into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let record = record();
        assert_eq!(
            record.to_string(),
            "v1 by 3:a%20transfer%2C%20of%3A%20all parts X:0:18446744073709551615:a%2Fb,A:7:7:%C3%A4%20. passes 5-9,7fffffffffffffff-1"
        );
        assert_eq!(Record::parse(&record.to_string()), Some(record.clone()));
        let bare = Record { token: 0, name: String::new(), passes: BTreeSet::new(), ..record };
        assert_eq!(Record::parse(&bare.to_string()), Some(bare.clone()));
        // A field of a later version is passed over.
        assert_eq!(Record::parse(&format!("{bare} since 5")), Some(bare));
    }

    #[test]
    fn what_was_not_written_by_us_is_not_read() {
        for text in ["", "v1", "v2 by 0 parts A:0:1:x", "v1 by 0", "v1 by x parts A:0:1:x", "v1 by 0 parts A:2:1:x"] {
            assert_eq!(Record::parse(text), None, "{text}");
        }
        for text in [
            "v1 by 0 parts C:0:1:x",
            "v1 by 0 parts A:0:1:",
            "v1 by 0 parts A:0:1:x:y",
            "v1 by 0 parts A:0:1:x passes 7",
        ] {
            assert_eq!(Record::parse(text), None, "{text}");
        }
        let kv = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into(), created: 1, modified: 1 };
        assert_eq!(entries(vec![kv("p/lock/x/.1-2-0", "hello")]), Err("p/lock/x/.1-2-0".to_string()));
        assert_eq!(entries(vec![kv("p/lock/x/hello", "v1 by 0 parts A:0:1:x")]), Err("p/lock/x/hello".to_string()));
        assert_eq!(entries(vec![kv("p/lock/x/.1-2-0", GONE)]), Ok(BTreeMap::new()));
    }

    #[test]
    fn names_stay_apart() {
        for name in ["a", "a/b", "a%2Fb", "ä", "..", " ", "a\0b", "a.b-c_D"] {
            let escaped = escape(name);
            assert!(!escaped.contains(['/', ':', ',', ' ']), "{escaped}");
            assert_eq!(unescape(&escaped).as_deref(), Some(name));
        }
        assert!(check_name("").is_err());
        assert!(check_name(&"/".repeat(400)).is_err());
        let keys = Keys { prefix: "p/".into() };
        assert!(
            !keys.all_of("a").contains(&keys.lock("ab")) && keys.all_of("a").contains(&format!("{}.1", keys.lock("a")))
        );
        assert!(!keys.all_by(1, 2).contains(&keys.all_by(1, 22).first));
    }

    #[test]
    fn all_keys_of_a_request_lead_to_it() {
        let keys = Keys { prefix: "p/".into() };
        let (id, record) = (RequestId { lease: 0x7f1, number: 12 }, record());
        let names = keys.of(id, &record);
        assert_eq!(names[0], "p/lock/a%2Fb/.7f1-12-0");
        assert_eq!(names[2], "p/owner/7f1-3/7f1-12");
        for key in names {
            let kv = KeyValue { key: key.clone(), value: record.to_string(), created: 4, modified: 5 };
            let read = entries(vec![kv]).unwrap();
            assert_eq!(read[&id], Entry { id, key, created: 4, modified: 5, record: record.clone() });
        }
    }

    #[test]
    fn a_transaction_takes_only_so_many_reads() {
        let keys = Keys { prefix: "p/".into() };
        let part = |at: u64| Part { first: at << 40, last: at << 40, mode: Letter::A, lock: "x".into() };
        assert_eq!(keys.reads(&[part(1)], 64).len(), 33);
        assert_eq!(keys.reads(&[part(1), part(1)], 64).len(), 33);
        let many: Vec<_> = (0..20).map(|at| part(at * 1000)).collect();
        assert_eq!(keys.reads(&many, 64), [keys.all_of("x")]);
    }
}
