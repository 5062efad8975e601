//! Looks a path up in a JSON Schema, to find paths that can never lead anywhere.

use serde_json::{Map, Value};

/// What a schema says about a path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found<'s> {
    /// The schema describes it.
    Described(&'s Value),
    /// The schema leaves it open.
    Open,
    /// The schema rules it out. The segment that failed, and what there is instead.
    Nothing {
        /// Which segment of the path.
        segment: usize,
        /// The fields that the schema declares at that place.
        fields: Vec<&'s str>,
    },
}

/// How many references are followed: a schema may refer to itself.
const REFERENCES: usize = 32;

/// Says what the schema knows of a path.
///
/// A declared object counts as closed unless it says `additionalProperties`: JSON Schema would leave it open, but a
/// field that nobody declared is, in a definition, a misspelling.
pub(crate) fn look_up<'s>(root: &'s Value, path: &[String]) -> Found<'s> {
    descend(root, root, path, 0, REFERENCES)
}

/// Returns the declared fields of an object schema.
pub(crate) fn fields(root: &Value) -> Vec<&str> {
    let properties = resolve(root, root, REFERENCES).and_then(|schema| schema.get("properties")?.as_object());
    properties.map(|properties| properties.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// Says whether an object schema demands a field.
pub(crate) fn requires(root: &Value, field: &str) -> bool {
    let required = resolve(root, root, REFERENCES).and_then(|schema| schema.get("required")?.as_array());
    required.is_some_and(|required| required.iter().any(|name| name == field))
}

fn resolve<'s>(root: &'s Value, schema: &'s Value, references: usize) -> Option<&'s Value> {
    match schema.get("$ref").and_then(Value::as_str) {
        None => Some(schema),
        Some(_) if references == 0 => None,
        Some(target) => resolve(root, root.pointer(target.strip_prefix('#')?)?, references - 1),
    }
}

fn descend<'s>(root: &'s Value, schema: &'s Value, path: &[String], at: usize, references: usize) -> Found<'s> {
    let Some(segment) = path.get(at) else {
        return Found::Described(schema);
    };
    let Some(schema) = resolve(root, schema, references) else {
        return Found::Open;
    };
    let Some(object) = schema.as_object() else {
        return Found::Open;
    };
    let references = references.saturating_sub(1);
    let go = |next: &'s Value, at: usize| descend(root, next, path, at, references);

    // Any branch that describes the path will do; only if all rule it out is it nothing.
    let mut fields = Vec::new();
    for keyword in ["anyOf", "oneOf", "allOf"] {
        for branch in object.get(keyword).and_then(Value::as_array).into_iter().flatten() {
            match go(branch, at) {
                Found::Nothing { segment, fields: more } if segment == at => fields.extend(more),
                // `null` beside the object: it has no fields, which says nothing of the other branch.
                found => return found,
            }
        }
    }
    let has_branches = ["anyOf", "oneOf", "allOf"].iter().any(|keyword| object.contains_key(*keyword));
    if let Some(properties) = object.get("properties").and_then(Value::as_object) {
        return match properties.get(segment) {
            Some(next) => go(next, at + 1),
            None if is_closed(object) => {
                fields.extend(properties.keys().map(String::as_str));
                Found::Nothing { segment: at, fields }
            }
            None => Found::Open,
        };
    }
    if let Some(items) = object.get("items").filter(|items| items.is_object()) {
        return if segment.parse::<usize>().is_ok() {
            go(items, at + 1)
        } else {
            Found::Nothing { segment: at, fields }
        };
    }
    let allows = |kind: &str| match object.get("type") {
        None => !has_branches,
        Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
        Some(one) => one == kind,
    };
    if allows("object") || (allows("array") && segment.parse::<usize>().is_ok()) {
        return Found::Open;
    }
    Found::Nothing { segment: at, fields }
}

fn is_closed(object: &Map<String, Value>) -> bool {
    object.get("additionalProperties").is_none_or(|more| *more == Value::Bool(false))
        && !object.contains_key("patternProperties")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    fn is_nothing(schema: &Value, text: &str) -> bool {
        matches!(look_up(schema, &path(text)), Found::Nothing { .. })
    }

    #[test]
    fn a_path_is_nothing_only_where_the_schema_rules_it_out() {
        let schema = json!({
            "type": "object",
            "properties": {
                "total": {"type": "number"},
                "items": {"type": "array", "items": {"$ref": "#/$defs/line"}},
                "open": {"type": "object"},
                "any": {},
                "maybe": {"anyOf": [{"$ref": "#/$defs/line"}, {"type": "null"}]},
                "more": {"properties": {"a": {}}, "additionalProperties": true},
                "tree": {"$ref": "#/$defs/tree"}
            },
            "$defs": {
                "line": {"type": "object", "properties": {"sku": {"type": "string"}}},
                "tree": {"properties": {"child": {"$ref": "#/$defs/tree"}}}
            }
        });
        for good in
            ["total", "items", "items.0", "items.3.sku", "open.x", "any.x.y", "maybe.sku", "more.b", "tree.child.child"]
        {
            assert!(!is_nothing(&schema, good), "{good}");
        }
        for bad in ["totl", "total.x", "items.sku", "items.0.skew", "maybe.skew", "tree.kid"] {
            assert!(is_nothing(&schema, bad), "{bad}");
        }
        let loops = json!({"$ref": "#"});
        assert_eq!(look_up(&loops, &path("a")), Found::Open);
        assert_eq!(fields(&schema).len(), 7);
        assert!(requires(&json!({"required": ["a"]}), "a"));
    }
}
