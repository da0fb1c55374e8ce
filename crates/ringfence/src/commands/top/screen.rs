//! The terminal: taken over while it shows something, and given back as it was, however that ends.

use std::thread;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::view::View;
use crate::exit::Failure;

/// Keys that wait for a look that is being drawn.
const WISHES_MAX: usize = 16;

/// What the user wants.
enum Wish {
    End,
    /// The terminal has another size, or was written over.
    Redraw,
}

/// A terminal that is ours until this is dropped. A panic gives it back too, before it is told.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Screen, Failure> {
        Ok(Screen(ratatui::try_init()?))
    }

    fn draw(&mut self, view: Option<&View>) -> Result<(), Failure> {
        self.0.draw(|frame| match view {
            Some(view) => view.draw(frame),
            None => frame.render_widget("asking the members…", frame.area()),
        })?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows views as they come, until the user has seen enough.
pub(super) async fn show(mut views: mpsc::Receiver<View>) -> Result<(), Failure> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut screen = Screen::open()?;
    let mut wishes = wishes();
    let mut shown = None;
    loop {
        screen.draw(shown.as_ref())?;
        tokio::select! {
            Some(view) = views.recv() => shown = Some(view),
            wish = wishes.recv() => match wish {
                Some(Wish::Redraw) => {}
                Some(Wish::End) | None => return Ok(()),
            },
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}

/// What the keyboard says. Its thread ends with the process: nothing can be done to a read that waits.
fn wishes() -> mpsc::Receiver<Wish> {
    let (sender, wishes) = mpsc::channel(WISHES_MAX);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            let wish = match event {
                Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => Wish::End,
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Wish::End,
                    _ => continue,
                },
                Event::Resize(..) => Wish::Redraw,
                _ => continue,
            };
            if sender.blocking_send(wish).is_err() {
                return;
            }
        }
    });
    wishes
}
