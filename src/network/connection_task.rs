//! The tasks that drive connections: who owns each of them, and what ends it.
//!
//! hyper ends a connection when it has flushed what lies in its buffers, which it never has where a peer reads nothing. So each
//! connection has an owner besides, and ends with that: at once where a request on it is not finished, else in a time that is
//! enough to say goodbye in (GOAWAY, TLS's close_notify).

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};

use crate::sync::lock;

/// How long a connection may take to end that nobody uses any more.
const CLOSING: Duration = Duration::from_secs(1);

/// The right to a connection: it ends when nobody has that any more.
#[derive(Clone)]
pub(crate) struct Driver(Arc<Mutex<Option<oneshot::Sender<()>>>>);

impl Driver {
    /// Has the runtime drive a connection. `tasks`: those of a connection of HTTP/2.
    pub(crate) fn spawn(connection: impl Future<Output = ()> + Send + 'static, tasks: Option<&Tasks>) -> Self {
        let (owner, left) = oneshot::channel();
        let socket = tasks.and_then(Tasks::take_socket);
        tokio::spawn(async move {
            let connection = async move {
                // dropped when this is, and the task that has the socket with it
                let mut socket = socket;
                connection.await;
                if let Some(Ends(socket)) = &mut socket {
                    let _ = socket.await;
                }
            };
            drive(connection, left).await;
        });
        Self(Arc::new(Mutex::new(Some(owner))))
    }

    /// Ends the connection, whatever lies in its buffers.
    pub(crate) fn end(&self) {
        if let Some(owner) = lock(&self.0).take() {
            let _ = owner.send(());
        }
    }
}

async fn drive(connection: impl Future<Output = ()>, left: oneshot::Receiver<()>) {
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        () = &mut connection => return,
        ended = left => if ended.is_ok() { return },
    }
    let _ = tokio::time::timeout(CLOSING, connection).await;
}

/// A task that is not to outlive its owner.
struct Ends(JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a connection of HTTP/2 has its tasks run: the first has its socket, others send a request's body or wait for its response.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    socket: Option<Ends>,
    has_begun: bool,
    /// Whose body the next task sends, if it sends one.
    next: Option<Arc<Mutex<Upload>>>,
}

/// The task that sends a request's body on a stream of HTTP/2. It waits for as long as its peer does not let it send, and looks at
/// nothing else meanwhile.
#[derive(Default)]
struct Upload {
    task: Option<AbortHandle>,
    is_over: bool,
}

impl Tasks {
    fn take_socket(&self) -> Option<Ends> {
        lock(&self.0).socket.take()
    }

    /// For a request's body.
    pub(crate) fn upload(&self) -> (Uploading, Begins) {
        let upload = Arc::<Mutex<Upload>>::default();
        (Uploading(upload.clone()), Begins { tasks: self.clone(), upload })
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        let task = tokio::spawn(future);
        let mut state = lock(&self.0);
        if !state.has_begun {
            state.has_begun = true;
            state.socket = Some(Ends(task));
        } else if let Some(upload) = state.next.take() {
            let mut upload = lock(&upload);
            if upload.is_over {
                task.abort();
            } else {
                upload.task = Some(task.abort_handle());
            }
        }
    }
}

/// Told when hyper begins to read a body: if the body is not over at once, the task that goes on with it is the next to be made, by
/// the same task of hyper's and before it does anything else. (If it is over, the next is the one that waits for the response, which
/// does so for nobody but this body's owner.)
pub(crate) struct Begins {
    tasks: Tasks,
    upload: Arc<Mutex<Upload>>,
}

impl Begins {
    pub(crate) fn begin(self) {
        lock(&self.tasks.0).next = Some(self.upload);
    }
}

/// The right to send a body: dropped, no more of it is sent, and its stream is reset if it is not over.
pub(crate) struct Uploading(Arc<Mutex<Upload>>);

impl Drop for Uploading {
    fn drop(&mut self) {
        let mut upload = lock(&self.0);
        upload.is_over = true;
        if let Some(task) = upload.task.take() {
            task.abort();
        }
    }
}
