//! What a history must be like. It knows the contract, and of the protocol only what is written in the store.

use super::{Sim, World};
use crate::record::{GONE, Record};
use crate::{Guard, Mode};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Bytes of a lock that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) lock: usize,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) mode: Mode,
}

impl Span {
    /// The table of the contract, once more.
    fn collides(&self, other: &Span) -> bool {
        let together = match (self.mode, other.mode) {
            (Mode::Add, Mode::Add) | (Mode::Block, Mode::Block) => true,
            (Mode::Exclusive, _) | (_, Mode::Exclusive) | (Mode::Add, Mode::Block) | (Mode::Block, Mode::Add) => false,
        };
        self.lock == other.lock && self.first.max(other.first) <= self.last.min(other.last) && !together
    }
}

/// A grant, from when the client learnt of it.
#[derive(Debug)]
struct Grant {
    spans: Vec<Span>,
    owner: u64,
    lease: i64,
    token: u64,
    /// Until it is released or known to be lost.
    guard: Option<Arc<Guard<Sim>>>,
}

/// Everything that was granted in a run.
#[derive(Debug, Default)]
pub(super) struct Judge {
    grants: Mutex<BTreeMap<usize, Grant>>,
    faults: Mutex<Vec<String>>,
    pub(super) counts: Mutex<BTreeMap<&'static str, usize>>,
}

impl Judge {
    pub(super) fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub(super) fn add(&self, what: &'static str, count: usize) {
        *self.counts.lock().unwrap().entry(what).or_default() += count;
    }

    pub(super) fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    pub(super) fn verdict(&self) -> Result<(), String> {
        let faults = self.faults.lock().unwrap();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }

    /// Somebody was granted these.
    pub(super) fn granted(&self, world: &World, spans: Vec<Span>, owner: u64, lease: i64, guard: Guard<Sim>) -> usize {
        self.count("grants");
        let token = guard.token();
        let mut grants = self.grants.lock().unwrap();
        for other in grants.values().filter(|other| other.owner != owner) {
            if world.ended_early(other.lease) || world.ended_early(lease) {
                continue;
            }
            let Some((mine, its)) = collision(&spans, &other.spans) else { continue };
            let holds = other.guard.as_ref().is_some_and(|guard| !guard.is_lost());
            if holds && !guard.is_lost() {
                self.fault(format!("exclusion: {mine:?} of {owner} beside {its:?} of {}", other.owner));
            }
            if token <= other.token {
                self.fault(format!("token {token} for {mine:?} after {} for {its:?}", other.token));
            }
        }
        if !world.ended_early(lease) && !guard.is_lost() {
            self.check_order(world, &guard);
        }
        let number = grants.len();
        grants.insert(number, Grant { spans, owner, lease, token, guard: Some(Arc::new(guard)) });
        number
    }

    /// First come, first served: nobody who came before and is in the way is in the store, unless he was passed, by one
    /// who holds something.
    fn check_order(&self, world: &World, guard: &Guard<Sim>) {
        let all = world.dump();
        let parse = |value: &str| Record::parse(value).filter(|_| value != GONE);
        let id = |key: &str| key.rsplit('.').next().and_then(|id| id.rsplit_once('-')).map(|(id, _)| id.to_string());
        let Some(me) = all.iter().find(|kv| kv.key == guard.keys()[0]) else {
            return self.fault(format!("{} was granted and is not in the store", guard.keys()[0]));
        };
        let mine = parse(&me.value).expect("it was granted");
        let owner = |record: &Record, id: &str| match record.token {
            0 => id.to_string(),
            token => format!("{}:{token}", id.split('-').next().unwrap_or_default()),
        };
        let my_owner = owner(&mine, &id(&me.key).unwrap());
        for other in all.iter().filter(|kv| kv.key.contains("/lock/") && kv.created < me.created) {
            let Some(its) = parse(&other.value) else { continue };
            let its_id = id(&other.key).unwrap();
            let collides = collision(&spans(&mine), &spans(&its)).is_some() && owner(&its, &its_id) != my_owner;
            if collides && !mine.passes.iter().any(|passed| passed.to_string() == its_id) {
                self.fault(format!("order: {} was granted before {}", me.value, other.value));
            } else if collides {
                self.count("passes");
                let index = format!("owner/{:x}-{}/", guard_lease(&me.key), mine.token);
                if all.iter().filter(|kv| kv.key.contains(&index)).count() < 2 {
                    self.fault(format!("{} passed {} and was not nested", me.value, other.value));
                }
            }
        }
    }

    /// The guard of a grant, which is then its holder's to drop. It holds in the judge's eyes until then.
    pub(super) fn released(&self, number: usize) -> Arc<Guard<Sim>> {
        let mut grants = self.grants.lock().unwrap();
        grants.get_mut(&number).and_then(|grant| grant.guard.take()).expect("it was granted and not released")
    }
}

fn guard_lease(key: &str) -> i64 {
    let id = key.rsplit('.').next().and_then(|id| id.split('-').next()).unwrap_or_default();
    i64::from_str_radix(id, 16).unwrap_or_default()
}

fn spans(record: &Record) -> Vec<Span> {
    let lock = |name: &str| name.trim_start_matches("lock-").parse().unwrap_or(usize::MAX);
    let span = |part: &crate::record::Part| Span {
        lock: lock(&part.lock),
        first: part.first,
        last: part.last,
        mode: part.mode(),
    };
    record.parts.iter().map(span).collect()
}

fn collision<'s>(mine: &'s [Span], its: &'s [Span]) -> Option<(&'s Span, &'s Span)> {
    mine.iter().find_map(|mine| its.iter().find(|its| mine.collides(its)).map(|its| (mine, its)))
}
