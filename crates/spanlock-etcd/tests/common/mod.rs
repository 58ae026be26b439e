//! A cluster of real etcd processes on loopback, in a temporary folder.

#![allow(dead_code, reason = "each test uses what it needs")]

use spanlock_etcd::etcd_client::Client;
use spanlock_etcd::{Cluster, Options};
use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// One cluster at a time: the machine may be small.
static ONE: Mutex<()> = Mutex::new(());

static CLUSTERS: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct Etcds {
    folder: PathBuf,
    members: Vec<Member>,
}

struct Member {
    arguments: Vec<String>,
    endpoint: String,
    process: Option<Child>,
}

/// Ports that nobody has, all different.
fn ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Etcds {
    fn start(count: usize, more: &[&str]) -> Etcds {
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("spanlock-etcd-{}-{number}", std::process::id()));
        let ports = ports(2 * count);
        let names: Vec<_> =
            ports.chunks(2).enumerate().map(|(at, pair)| (format!("m{at}"), pair[0], pair[1])).collect();
        let all: Vec<_> = names.iter().map(|(name, _, peer)| format!("{name}=http://127.0.0.1:{peer}")).collect();
        let member = |(name, client, peer): &(String, u16, u16)| {
            let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let data = folder.join(name).display().to_string();
            let arguments = [
                ("--name", name.as_str()),
                ("--data-dir", &data),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &all.join(",")),
                ("--heartbeat-interval", "100"),
                ("--election-timeout", "1000"),
                ("--log-level", "error"),
            ];
            let arguments = arguments.iter().flat_map(|(name, value)| [name.to_string(), value.to_string()]);
            let arguments = arguments.chain(more.iter().map(ToString::to_string)).collect();
            Member { arguments, endpoint: client, process: None }
        };
        let mut etcds = Etcds { members: names.iter().map(member).collect(), folder: folder.clone() };
        (0..count).for_each(|at| etcds.restart(at));
        etcds
    }

    /// The client URLs of all.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn restart(&mut self, at: usize) {
        let mut command = Command::new("etcd");
        command.args(&self.members[at].arguments).stdout(Stdio::null()).stderr(Stdio::null());
        self.members[at].process = Some(command.spawn().unwrap());
    }

    pub(crate) async fn client(&self, at: usize) -> Client {
        Client::connect([&self.members[at].endpoint], None).await.unwrap()
    }

    /// Which member leads.
    pub(crate) async fn leader(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            for at in 0..self.members.len() {
                let mut client = self.client(at).await;
                let status = tokio::time::timeout(Duration::from_secs(1), client.status()).await;
                if let Ok(Ok(status)) = status
                    && status.leader() != 0
                    && status.header().is_some_and(|header| header.member_id() == status.leader())
                {
                    return at;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("nobody leads");
    }

    pub(crate) async fn session(&self, options: Options) -> Cluster {
        Cluster::connect(self.endpoints(), options).await.unwrap()
    }
}

impl Drop for Etcds {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|at| self.kill(at));
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs a test with a cluster of `count` members that is up, or says that there is no etcd on this machine.
pub(crate) fn with_etcd<F: Future<Output = ()>>(count: usize, more: &[&str], test: impl FnOnce(Etcds) -> F) {
    if Command::new("etcd").arg("--version").output().is_err() {
        assert!(std::env::var_os("SPANLOCK_ETCD_REQUIRED").is_none(), "there is no etcd on this machine");
        return println!("skipped: there is no etcd on this machine");
    }
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let etcds = Etcds::start(count, more);
        etcds.leader().await;
        tokio::time::timeout(Duration::from_secs(240), test(etcds)).await.expect("it takes too long");
    });
}

/// A process that does not outlive whoever started it, stopped or not.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().unwrap().success());
}
