//! The store on etcd, by the `etcd-client` crate.
//!
//! A call goes to one member, and is given up after a while; the next one then goes to another member. (Who called
//! tries again, and knows what that means: see [`Store`].)
//!
//! It takes etcd 3.4, which is the first to let watches be numbered by who asks.
//!
//! Watches share one stream. When it breaks, it is opened anew, at another member, and each watch begins again at the
//! revision that it was to begin at: so nothing is missed, and who waits learns of what has happened meanwhile, or that
//! it has been compacted away. Keep-alives have a stream of their own.

use crate::error::Error;
use crate::lock::Cluster;
use crate::session::{Backoff, Options};
use crate::store::{Answer, Condition, KeyValue, Lease, Op, Revision, Store, StoreError, Transaction};
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, GetOptions, LeaseKeepAliveStream, LeaseKeeper, PutOptions, Txn, TxnOp,
    TxnOpResponse, WatchOptions, WatchRequestSender, WatchResponse,
};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

/// How long a member has for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

impl Cluster {
    /// A session on the etcd cluster that has these members, given by their client URLs: all of them, so that any may
    /// fail.
    ///
    /// To be called in a tokio runtime that goes on for as long as the session is to be kept alive.
    ///
    /// # Errors
    /// What etcd says, or that nobody answers.
    pub async fn connect<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        options: Options,
    ) -> Result<Cluster, Error> {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        let etcd = Etcd::new(endpoints, options.etcd.clone())?;
        Cluster::open(etcd, options).await
    }
}

/// How many transactions a session has on their way at once.
const AT_ONCE: usize = 32;

/// The largest answer that is taken, in bytes: a read of some 100,000 requests.
const LARGEST_ANSWER: usize = 64 << 20;

/// An etcd cluster, as a [`Store`].
pub struct Etcd {
    members: Members,
    /// The same, by other connections: what must not be late does not wait behind many transactions.
    quick: Arc<Members>,
    /// As many transactions are on their way at once, and the others wait here: in the server's queue their time would
    /// run out.
    permits: Semaphore,
    keeper: Mutex<Option<(i64, LeaseKeeper, LeaseKeepAliveStream)>>,
    watches: mpsc::UnboundedSender<Order>,
    runtime: Handle,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("endpoints", &self.members.endpoints).finish_non_exhaustive()
    }
}

impl Etcd {
    /// The cluster that has these members. Nobody is asked yet.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if there is no endpoint.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(endpoints: Vec<String>, options: Option<ConnectOptions>) -> Result<Etcd, StoreError> {
        if endpoints.is_empty() {
            return Err(StoreError::Refused("no endpoint was given".into()));
        }
        // A member without a leader must say so, and one that is stopped be found out. (More often than each 5 s etcd
        // does not let itself be asked.)
        let options = options
            .unwrap_or_default()
            .with_require_leader(true)
            .with_auto_token_refresh(true)
            .with_connect_timeout(PATIENCE)
            .with_keep_alive(Duration::from_secs(6), PATIENCE)
            // It hangs up on those who ask while they have no call open.
            .with_keep_alive_while_idle(false);
        let quick = Arc::new(Members::new(endpoints.clone(), options.clone()));
        let (watches, orders) = mpsc::unbounded_channel();
        let runtime = Handle::current();
        runtime.spawn(Watcher { members: Arc::clone(&quick), orders, watches: BTreeMap::new(), next: 1 }.run());
        let members = Members::new(endpoints, options);
        Ok(Etcd { members, quick, permits: Semaphore::new(AT_ONCE), keeper: Mutex::new(None), watches, runtime })
    }
}

/// The members, of which one is asked at a time.
struct Members {
    endpoints: Vec<String>,
    options: ConnectOptions,
    clients: Vec<OnceCell<Client>>,
    at: AtomicUsize,
}

impl Members {
    fn new(endpoints: Vec<String>, options: ConnectOptions) -> Members {
        let clients = endpoints.iter().map(|_| OnceCell::new()).collect();
        Members { endpoints, options, clients, at: AtomicUsize::new(0) }
    }

    async fn client(&self, at: usize) -> Result<Client, etcd_client::Error> {
        let connect = || Client::connect([&self.endpoints[at]], Some(self.options.clone()));
        Ok(self.clients[at].get_or_try_init(connect).await?.clone())
    }

    /// Has `work` done by the present member, if it answers in time. If not, the next is tried next.
    async fn call<A, F>(&self, work: impl FnOnce(Client) -> F) -> Result<A, StoreError>
    where
        F: Future<Output = Result<A, etcd_client::Error>>,
    {
        let at = self.at.load(Ordering::Relaxed);
        let answer = timeout(PATIENCE, async { work(self.client(at).await?).await }).await;
        let answer = match answer {
            Ok(answer) => answer.map_err(translate),
            Err(_) => Err(StoreError::Unavailable(format!("no answer within {PATIENCE:?}"))),
        };
        if let Err(StoreError::Unavailable(why)) = answer {
            let next = (at + 1) % self.endpoints.len();
            let _ = self.at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            return Err(StoreError::Unavailable(format!("{}: {why}", self.endpoints[at])));
        }
        answer
    }
}

/// What an error of the client means.
fn translate(error: etcd_client::Error) -> StoreError {
    let status = match error {
        etcd_client::Error::GRpcStatus(status) => status,
        etcd_client::Error::LeaseKeepAliveError(why) if why.contains("lease not found") => {
            return StoreError::LeaseGone;
        }
        etcd_client::Error::InvalidArgs(why) => return StoreError::Refused(why),
        etcd_client::Error::InvalidUri(why) => return StoreError::Refused(why.to_string()),
        other => return StoreError::Unavailable(other.to_string()),
    };
    let says = |words: &str| status.message().contains(words);
    let why = || status.message().to_string();
    // The codes of gRPC.
    match status.code() as i32 {
        5 if says("lease not found") => StoreError::LeaseGone,
        8 if says("space exceeded") => StoreError::Full,
        // A request that its transport does not take, an answer that ours does not, a lease of some centuries: the next
        // try would fare no better.
        8 if says("larger than max") => StoreError::Refused(why()),
        11 if says("message length too large") || says("too large lease TTL") => StoreError::Refused(why()),
        11 if says("has been compacted") => StoreError::Compacted,
        7 | 16 => StoreError::Denied(why()),
        3 | 5 | 6 | 9 | 12 => StoreError::Refused(why()),
        _ => StoreError::Unavailable(format!("{:?}: {}", status.code(), why())),
    }
}

fn compare(condition: Condition) -> Compare {
    match condition {
        Condition::Absent(key) => Compare::create_revision(key, CompareOp::Equal, 0),
        Condition::Unchanged(key, revision) => Compare::mod_revision(key, CompareOp::Equal, revision),
    }
}

fn step(op: Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease } => TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease))),
        Op::Delete(key) => TxnOp::delete(key, None),
        Op::Read(range, at) => {
            let options = GetOptions::new().with_range(range.end).with_revision(at.unwrap_or(0));
            TxnOp::get(range.first, Some(options))
        }
    }
}

impl Store for Etcd {
    async fn transact(&self, transaction: Transaction) -> Result<Answer, StoreError> {
        let Transaction { when, then, otherwise } = transaction;
        let txn = Txn::new()
            .when(when.into_iter().map(compare).collect::<Vec<_>>())
            .and_then(then.into_iter().map(step).collect::<Vec<_>>())
            .or_else(otherwise.into_iter().map(step).collect::<Vec<_>>());
        let _permit = self.permits.acquire().await;
        let work =
            |client: Client| async move { client.kv_client().max_decoding_message_size(LARGEST_ANSWER).txn(txn).await };
        let answer = self.members.call(work).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = answer.op_responses().into_iter().flat_map(|response| match response {
            TxnOpResponse::Get(mut get) => get.take_kvs(),
            _ => Vec::new(),
        });
        let found = found.map(|kv| KeyValue {
            key: text(kv.key()),
            value: text(kv.value()),
            created: kv.create_revision(),
            modified: kv.mod_revision(),
        });
        let revision = answer.header().map_or(0, |header| header.revision());
        Ok(Answer { revision, held: answer.succeeded(), found: found.collect() })
    }

    async fn changed(&self, keys: Vec<String>, from: Revision) {
        let (done, happened) = oneshot::channel();
        let (told, number) = oneshot::channel();
        let order = Order::Watch(Watch { keys, from, done, ids: Vec::new() }, told);
        if self.watches.send(order).is_err() {
            return std::future::pending().await;
        }
        let _leave = Leave { watches: &self.watches, number };
        let _ = happened.await;
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease, StoreError> {
        // Whole seconds, at least one; etcd makes it longer if its elections take that long.
        let seconds = ttl.as_secs_f64().ceil().max(1.0) as i64;
        let answer = self.quick.call(|mut client| async move { client.lease_grant(seconds, None).await }).await?;
        Ok(Lease { id: answer.id(), ttl: Duration::from_secs(answer.ttl().max(1) as u64) })
    }

    async fn keep_alive(&self, lease: i64) -> Result<Duration, StoreError> {
        // Out of its place while it is used: if this is dropped or fails, the next one opens another.
        let open = self.keeper.lock().expect("nothing panics in there").take().filter(|open| open.0 == lease);
        let work = |mut client: Client| async move {
            let (mut keeper, mut stream) = match open {
                Some((_, keeper, stream)) => (keeper, stream),
                None => client.lease_keep_alive(lease).await?,
            };
            keeper.keep_alive().await?;
            let answer = stream.message().await?;
            let gone = || etcd_client::Error::LeaseKeepAliveError("the stream has ended".into());
            Ok((answer.ok_or_else(gone)?.ttl(), keeper, stream))
        };
        let (ttl, keeper, stream) = self.quick.call(work).await?;
        if ttl <= 0 {
            return Err(StoreError::LeaseGone);
        }
        *self.keeper.lock().expect("nothing panics in there") = Some((lease, keeper, stream));
        Ok(Duration::from_secs(ttl as u64))
    }

    async fn revoke(&self, lease: i64) -> Result<(), StoreError> {
        self.quick.call(|mut client| async move { client.lease_revoke(lease).await }).await?;
        Ok(())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }
}

/// What the watcher is asked for.
enum Order {
    /// Watch these; the number by which the watch goes is told.
    Watch(Watch, oneshot::Sender<u64>),
    /// Nobody listens any more.
    Leave(u64),
}

/// Keys that somebody waits for a change of.
struct Watch {
    keys: Vec<String>,
    from: Revision,
    done: oneshot::Sender<()>,
    /// What its keys go by in the present stream.
    ids: Vec<i64>,
}

/// Ends the watch when whoever wanted it is dropped.
struct Leave<'s> {
    watches: &'s mpsc::UnboundedSender<Order>,
    number: oneshot::Receiver<u64>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        // Not told yet: then it has not been begun either, and from now on cannot be.
        self.number.close();
        if let Ok(number) = self.number.try_recv() {
            let _ = self.watches.send(Order::Leave(number));
        }
    }
}

/// The task that has the stream of watches.
struct Watcher {
    members: Arc<Members>,
    orders: mpsc::UnboundedReceiver<Order>,
    watches: BTreeMap<u64, Watch>,
    /// The next number of a watch or of a key in a stream: none is used twice.
    next: u64,
}

/// Why a stream was left.
enum Left {
    /// It broke: another one.
    Broken,
    /// Nobody has the store any more.
    Unwanted,
}

impl Watcher {
    async fn run(mut self) {
        let mut at = 0;
        let mut backoff = Backoff::default();
        loop {
            // Nobody has told the stream while there was none.
            self.watches.retain(|_, watch| !watch.done.is_closed());
            if self.watches.is_empty() {
                match self.orders.recv().await {
                    Some(order) => drop(self.note(order)),
                    None => return,
                }
                continue;
            }
            match self.stream(at, &mut backoff).await {
                Left::Unwanted => return,
                Left::Broken => backoff.pause().await,
            }
            at = (at + 1) % self.members.endpoints.len();
        }
    }

    /// Serves the watches by a stream of the member, until it breaks.
    async fn stream(&mut self, at: usize, backoff: &mut Backoff) -> Left {
        // The client wants a first key to open a stream: one that nobody has.
        let open = async { self.members.client(at).await?.watch("\0", None).await };
        let Ok(Ok(stream)) = timeout(PATIENCE, open).await else { return Left::Broken };
        let (mut sender, mut receiver) = stream.split();
        let mut by_id = BTreeMap::new();
        let all: Vec<_> = self.watches.keys().copied().collect();
        for number in all {
            if self.begin(number, &mut sender, &mut by_id).await.is_none() {
                return Left::Broken;
            }
        }
        loop {
            tokio::select! {
                order = self.orders.recv() => {
                    let Some(order) = order else { return Left::Unwanted };
                    let sent = match self.note(order) {
                        Noted::Begun(number) => self.begin(number, &mut sender, &mut by_id).await,
                        Noted::Ended(watch) => cancel(&watch, &mut sender, &mut by_id).await,
                        Noted::Nothing => Some(()),
                    };
                    if sent.is_none() {
                        return Left::Broken;
                    }
                }
                message = receiver.message() => {
                    let Ok(Some(message)) = message else { return Left::Broken };
                    let is_ours = by_id.contains_key(&message.watch_id());
                    if is_ours && message.canceled() && !says_something(&message) {
                        // The user's token may have run out, which is looked at when a stream is opened.
                        return Left::Broken;
                    }
                    *backoff = Backoff::default();
                    if says_something(&message)
                        && let Some(number) = by_id.get(&message.watch_id())
                        && let Some(watch) = self.watches.remove(number)
                    {
                        if cancel(&watch, &mut sender, &mut by_id).await.is_none() {
                            return Left::Broken;
                        }
                        let _ = watch.done.send(());
                    }
                }
            }
        }
    }

    fn note(&mut self, order: Order) -> Noted {
        match order {
            Order::Watch(watch, told) => {
                let number = self.number();
                // Whoever wanted it may be gone already.
                if watch.done.is_closed() || told.send(number).is_err() {
                    return Noted::Nothing;
                }
                self.watches.insert(number, watch);
                Noted::Begun(number)
            }
            Order::Leave(number) => self.watches.remove(&number).map_or(Noted::Nothing, Noted::Ended),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Begins a watch in the stream. `None`: the stream takes nothing.
    async fn begin(
        &mut self,
        number: u64,
        sender: &mut WatchRequestSender,
        by_id: &mut BTreeMap<i64, u64>,
    ) -> Option<()> {
        let ids: Vec<_> = (0..self.watches[&number].keys.len()).map(|_| self.number() as i64).collect();
        let watch = self.watches.get_mut(&number)?;
        watch.ids = ids;
        for (key, &id) in watch.keys.iter().zip(&watch.ids) {
            by_id.insert(id, number);
            let options = WatchOptions::new().with_start_revision(watch.from).with_watch_id(id);
            timeout(PATIENCE, sender.watch(key.as_str(), Some(options))).await.ok()?.ok()?;
        }
        Some(())
    }
}

/// What has become of an order.
enum Noted {
    Begun(u64),
    Ended(Watch),
    Nothing,
}

/// Ends a watch in the stream. `None`: the stream takes nothing.
async fn cancel(watch: &Watch, sender: &mut WatchRequestSender, by_id: &mut BTreeMap<i64, u64>) -> Option<()> {
    for id in &watch.ids {
        by_id.remove(id);
        timeout(PATIENCE, sender.cancel(*id)).await.ok()?.ok()?;
    }
    Some(())
}

/// Whether something has happened, or was compacted away.
fn says_something(message: &WatchResponse) -> bool {
    !message.events().is_empty() || message.compact_revision() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No member answers, and nobody has the store any more.
    #[test]
    fn a_store_that_is_dropped_leaves_no_task() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let etcd = Etcd::new(vec!["http://127.0.0.1:1".into()], None).unwrap();
            assert!(timeout(Duration::from_millis(300), etcd.changed(vec!["x".into()], 1)).await.is_err());
            let alive = || Handle::current().metrics().num_alive_tasks();
            assert!(alive() > 0);
            drop(etcd);
            let gone = async {
                while alive() > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(PATIENCE * 3, gone).await.expect("the watcher goes on");
        });
    }
}
