//! Which room of the server needs what next, so that the bot is in every one of them, and the loop
//! that does it.
//!
//! [`planner`] is pure: facts about one room in, one step out. [`facts`] reads those facts as
//! cheaply as possible, [`runner`] polls the homeserver and carries steps out, and [`acts`] is how
//! everything that it makes the homeserver do is recorded.

pub mod acts;
mod book;
mod carry_out;
mod direct;
mod entries;
pub mod facts;
mod interface;
mod marks;
mod memory;
mod pace;
mod past;
mod perform;
pub mod planner;
pub mod preview;
mod puppet;
mod recording;
pub mod runner;
mod schedule;
mod spaces;

pub use acts::{Act, ActLog, ActLogError, ActOutcome, SentEvent};
pub use book::{BookError, RoomBook};
pub use interface::{Control, CoverageState, Hint, Problem, RunnerSettings};
pub use runner::Runner;
