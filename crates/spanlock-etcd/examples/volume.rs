//! Several client processes read and write one striped file, under ranges of one lock that they share through etcd.
//!
//! ```console
//! $ cargo run --release -p spanlock-etcd --example volume -- --seconds 10
//! ```
//! It starts three etcd servers in a temporary folder (`--endpoints URL,URL` takes those that are there), a storage
//! server that has the file, and clients. One client is killed. One is stopped after it has read what it is going to
//! write, until its lease has run out and others have had its range; it goes on as if nothing had happened, and the
//! storage server refuses what it writes. In the end each stripe must have as many increments as were acknowledged.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Process, signal, with_etcd};
use spanlock_etcd::{Cluster, Error, Guard, Mode, Options, TokenMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const STRIPES: u64 = 16;
const STRIPE: u64 = 4096;
const TTL: Duration = Duration::from_secs(3);

/// What the storage server has.
struct Volume {
    file: File,
    seen: TokenMap,
    /// Writes of each stripe that were acknowledged.
    written: [u64; STRIPES as usize],
    refused: u64,
}

impl Volume {
    /// The number that fills a stripe; `None` if it is torn.
    fn read(&self, stripe: u64) -> Option<u64> {
        let mut bytes = [0; STRIPE as usize];
        self.file.read_exact_at(&mut bytes, stripe * STRIPE).ok()?;
        let mut numbers =
            bytes.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight of them")));
        let first = numbers.next()?;
        numbers.all(|number| number == first).then_some(first)
    }

    /// `read MODE FIRST LAST TOKEN` or `write FIRST LAST TOKEN NUMBER...`: stripes. Reads bring their token too: from
    /// then on nobody who came before writes there.
    fn serve(&mut self, line: &str) -> Option<String> {
        let mut words = line.split_whitespace();
        let (what, mode) = match words.next()? {
            "read" if words.next()? == "add" => ("read", Mode::Add),
            what => (what, Mode::Exclusive),
        };
        let mut number = || words.next()?.parse::<u64>().ok();
        let (first, last, token) = (number()?, number()?, number()?);
        if let Err(overtaken) = self.seen.admit(first * STRIPE..(last + 1) * STRIPE, mode, token) {
            self.refused += u64::from(what == "write");
            return Some(format!("refused: {overtaken}"));
        }
        if what == "write" {
            for stripe in first..=last {
                let bytes = number()?.to_le_bytes().repeat(STRIPE as usize / 8);
                self.file.write_all_at(&bytes, stripe * STRIPE).ok()?;
                self.written[stripe as usize] += 1;
            }
            return Some("ok".into());
        }
        let numbers: Option<Vec<_>> = (first..=last).map(|stripe| Some(self.read(stripe)?.to_string())).collect();
        Some(format!("ok {}", numbers?.join(" ")))
    }
}

/// Serves whoever connects.
fn serve(listener: &TcpListener, volume: &Arc<Mutex<Volume>>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let volume = Arc::clone(volume);
        std::thread::spawn(move || {
            let mut out = stream.try_clone().expect("a socket");
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let answer = volume.lock().expect("nobody panics").serve(&line).unwrap_or("what?".into());
                if writeln!(out, "{answer}").is_err() {
                    return;
                }
            }
        });
    }
}

/// A client's connection to the storage server.
struct Storage(BufReader<TcpStream>);

impl Storage {
    fn ask(&mut self, line: String) -> String {
        writeln!(self.0.get_mut(), "{line}").expect("the storage server is there");
        let mut answer = String::new();
        self.0.read_line(&mut answer).expect("the storage server is there");
        answer
    }

    /// What is in the stripes, or that it is refused.
    fn read(&mut self, mode: &str, first: u64, last: u64, token: u64) -> Result<Vec<u64>, String> {
        let answer = self.ask(format!("read {mode} {first} {last} {token}"));
        match answer.strip_prefix("ok ") {
            Some(numbers) => Ok(numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect()),
            None => Err(answer),
        }
    }

    fn write(&mut self, first: u64, last: u64, token: u64, numbers: &[u64]) -> Result<(), String> {
        let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        match self.ask(format!("write {first} {last} {token} {}", numbers.join(" "))) {
            answer if answer.starts_with("ok") => Ok(()),
            answer => Err(answer),
        }
    }
}

/// What a client process does: `KIND NUMBER STORAGE ENDPOINTS SECONDS`.
async fn client(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [kind, number, storage, endpoints, seconds] = arguments else { return Err("five arguments".into()) };
    let endpoints: Vec<_> = endpoints.split(',').collect();
    let connect = || Cluster::connect(endpoints.clone(), Options::default().ttl(TTL));
    let mut storage = Storage(BufReader::new(TcpStream::connect(storage)?));
    let mut cluster = connect().await?;
    if kind == "stopped" {
        let guard = stripes(&cluster, 0, 3, Mode::Exclusive).await?;
        let numbers = storage.read("exclusive", 0, 3, guard.token())?;
        println!("ready");
        // Stopped in here. It should ask `guard.is_lost()` then; this one does not.
        std::thread::sleep(Duration::from_secs(1));
        let next: Vec<_> = numbers.iter().map(|number| number + 1).collect();
        match storage.write(0, 3, guard.token(), &next) {
            Ok(()) => println!("its write was taken"),
            Err(refused) => println!("its write was {}", refused.trim()),
        }
        println!("its guard says that it is {}", if guard.is_lost() { "lost" } else { "good" });
        return Ok(());
    }
    let mut random = fastrand::Rng::with_seed(number.parse()?);
    let (mut operations, mut refused, mut waited) = (0, 0, Duration::ZERO);
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    while Instant::now() < end {
        let first = random.u64(0..STRIPES);
        let last = (first + random.u64(0..4)).min(STRIPES - 1);
        let is_write = random.u8(0..4) > 0;
        let mode = if is_write { Mode::Exclusive } else { Mode::Add };
        let asked = Instant::now();
        let guard = match stripes(&cluster, first, last, mode).await {
            Ok(guard) => guard,
            Err(Error::SessionLost) => {
                cluster = connect().await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        waited += asked.elapsed();
        let done = match storage.read(if is_write { "exclusive" } else { "add" }, first, last, guard.token()) {
            Ok(numbers) if is_write => {
                let next: Vec<_> = numbers.iter().map(|number| number + 1).collect();
                storage.write(first, last, guard.token(), &next)
            }
            read => read.map(drop),
        };
        match done {
            Ok(()) => operations += 1,
            Err(_) => refused += 1,
        }
        guard.release().await;
    }
    cluster.close().await;
    let mean = waited.as_secs_f64() * 1e3 / f64::from(operations.max(1));
    println!("{operations} operations, {mean:.1} ms from asking to the grant, {refused} refused");
    Ok(())
}

async fn stripes(cluster: &Cluster, first: u64, last: u64, mode: Mode) -> Result<Guard, Error> {
    cluster.lock("volume").request(first * STRIPE..(last + 1) * STRIPE, mode).await
}

struct Client {
    name: String,
    process: Process,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

fn spawn(kind: &str, number: u64, storage: &str, endpoints: &[String], seconds: u64) -> Client {
    let mut child = Command::new(std::env::current_exe().expect("it runs"))
        .args(["client", kind, &number.to_string(), storage, &endpoints.join(","), &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be run again");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    Client { name: format!("client {number}, {kind}"), process: Process(child), lines }
}

impl Client {
    /// Passes on what it says, until it ends.
    fn finish(mut self) -> bool {
        for line in self.lines.by_ref().map_while(Result::ok) {
            println!("{}: {line}", self.name);
        }
        self.process.0.wait().is_ok_and(|status| status.success())
    }
}

async fn play(endpoints: Vec<String>, seconds: u64) -> Result<bool, Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("spanlock-volume-{}", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    file.set_len(STRIPES * STRIPE)?;
    let volume = Volume { file, seen: TokenMap::new(64), written: [0; STRIPES as usize], refused: 0 };
    let volume = Arc::new(Mutex::new(volume));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let storage = listener.local_addr()?.to_string();
    std::thread::spawn({
        let volume = Arc::clone(&volume);
        move || serve(&listener, &volume)
    });

    let mut stopped = spawn("stopped", 0, &storage, &endpoints, seconds);
    if stopped.lines.next().and_then(Result::ok).as_deref() != Some("ready") {
        return Err("the first client does not get its range".into());
    }
    signal(stopped.process.0.id(), "STOP");
    println!("client 0 has read what it is going to write, and is stopped");
    let mut clients: Vec<_> = (1..=4).map(|number| spawn("busy", number, &storage, &endpoints, seconds)).collect();
    let mut killed = spawn("busy", 5, &storage, &endpoints, seconds);
    tokio::time::sleep(Duration::from_secs(seconds) / 2).await;
    killed.process.0.kill()?;
    killed.process.0.wait()?;
    println!("client 5 was killed");
    let cluster = Cluster::connect(endpoints.clone(), Options::default()).await?;
    println!("{}", cluster.lock("volume").snapshot().await?);
    // Until somebody has had its range.
    drop(stripes(&cluster, 0, 3, Mode::Exclusive).await?);
    tokio::time::sleep(Duration::from_secs(seconds) / 4).await;
    signal(stopped.process.0.id(), "CONT");
    let mut is_well = stopped.finish();
    for client in clients.drain(..) {
        is_well &= client.finish();
    }
    let left = cluster.lock("volume").snapshot().await?;
    let volume = volume.lock().expect("nobody panics");
    let found: Vec<_> = (0..STRIPES).map(|stripe| volume.read(stripe)).collect();
    let lost = found.iter().zip(&volume.written).filter(|(found, written)| **found != Some(**written)).count();
    std::fs::remove_file(path)?;
    println!(
        "{} writes were taken and {} refused; {lost} stripes are wrong; {left}",
        volume.written.iter().sum::<u64>(),
        volume.refused
    );
    Ok(is_well && lost == 0 && volume.refused > 0)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if arguments.first().is_some_and(|first| first == "client") {
        return match runtime().block_on(client(&arguments[1..])) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let (mut seconds, mut endpoints) = (10, None);
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--seconds" => seconds = value.parse().unwrap_or(seconds).max(6),
            [name, value] if name == "--endpoints" => {
                endpoints = Some(value.split(',').map(str::to_string).collect::<Vec<_>>());
            }
            _ => {
                println!("usage: volume [--seconds N] [--endpoints URL,URL...]");
                return ExitCode::FAILURE;
            }
        }
    }
    let mut outcome = Ok(true);
    match endpoints {
        Some(endpoints) => outcome = runtime().block_on(play(endpoints, seconds)),
        None => with_etcd(3, &[], async |etcds| outcome = play(etcds.endpoints(), seconds).await),
    }
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("something is wrong");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
