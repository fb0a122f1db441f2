//! The form of a whole state, for snapshots, for managers that are late, and for backups.

use herder_model::swarm::{Object, View};
use serde::{Deserialize, Serialize};

use crate::envelope;
use crate::state::{Remembered, State};

#[derive(Serialize, Deserialize)]
struct Whole {
    index: u64,
    objects: Vec<Object>,
    #[serde(default)]
    recent: Vec<Remembered>,
}

pub(crate) fn encode(state: &State) -> Result<Vec<u8>, serde_json::Error> {
    let objects = state.view.objects().collect();
    envelope::wrap(&Whole { index: state.view.index, objects, recent: state.recent().cloned().collect() })
}

pub(crate) fn decode(bytes: &[u8]) -> Result<State, String> {
    let whole: Whole = envelope::unwrap(bytes)?;
    Ok(State::of(View::of(whole.index, whole.objects), whole.recent))
}
