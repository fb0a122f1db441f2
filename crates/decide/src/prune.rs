//! Prunes of all nodes as one answer: lists are joined, sizes added up.

use serde_json::{Map, Value, json};

/// Joins answers of `POST /…/prune`: lists one after the other, numbers as sums; what only some have is kept.
pub fn merge(parts: Vec<Value>) -> Value {
    let mut merged = Map::new();
    for (key, value) in
        parts.into_iter().filter_map(|part| if let Value::Object(part) = part { Some(part) } else { None }).flatten()
    {
        match (merged.get_mut(&key), value) {
            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
            (Some(Value::Number(sum)), Value::Number(more)) => {
                *sum = (sum.as_i64().unwrap_or_default().saturating_add(more.as_i64().unwrap_or_default())).into();
            }
            (Some(kept), value) if kept.is_null() => *kept = value,
            (None, value) => {
                merged.insert(key, value);
            }
            (Some(_), _) => {}
        }
    }
    merged.entry("SpaceReclaimed").or_insert(json!(0));
    Value::Object(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_joined_and_sizes_added() {
        let parts = vec![
            json!({"ContainersDeleted": null, "SpaceReclaimed": 1}),
            json!({"ContainersDeleted": ["a"], "SpaceReclaimed": 2}),
            json!({"ContainersDeleted": ["b"], "SpaceReclaimed": 4}),
        ];
        assert_eq!(merge(parts), json!({"ContainersDeleted": ["a", "b"], "SpaceReclaimed": 7}));
        assert_eq!(merge(vec![]), json!({"SpaceReclaimed": 0}));
    }
}
