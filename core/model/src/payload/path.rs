//! One step of a path into JSON text.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// Returns the member or element that `segment` names.
pub(super) fn child(value: &RawValue, segment: &str) -> Option<Box<RawValue>> {
    match value.get().trim_start().as_bytes().first()? {
        b'{' => serde_json::from_str::<HashMap<String, Box<RawValue>>>(value.get()).ok()?.remove(segment),
        b'[' => {
            let position: usize = segment.parse().ok()?;
            // `01` and `+1` would be second spellings of one position.
            if position.to_string() != segment {
                return None;
            }
            let mut items: Vec<Box<RawValue>> = serde_json::from_str(value.get()).ok()?;
            (position < items.len()).then(|| items.swap_remove(position))
        }
        _ => None,
    }
}
