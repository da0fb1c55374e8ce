//! Starting servers.

use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

type Request = (Command, Sender<io::Result<Child>>);

/// Starts a command on a thread that lives as long as this process. The kernel ends a child with the *thread* that started
/// it, if asked to, and threads of the harness end.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = channel::<Request>();
        let work = move || {
            for (mut command, answer) in receiver {
                // Whoever asked waits for the answer.
                let _ = answer.send(command.spawn());
            }
        };
        thread::Builder::new().name("spawner".to_owned()).spawn(work).expect("a thread can be started");
        sender
    });
    let (answer, answered) = channel();
    spawner.send((command, answer)).expect("the spawning thread never ends");
    answered.recv().expect("the spawning thread answers")
}
