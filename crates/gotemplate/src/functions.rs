//! Functions and methods with typed parameters that callers of templates add.

use crate::value::Value;

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param {
    Any,
    Text,
    Number,
    Float,
    Bool,
    /// A list of whatever.
    List,
    /// A map from texts to whatever.
    Map,
}

impl Param {
    pub(crate) fn told(self) -> &'static str {
        match self {
            Param::Any => "interface {}",
            Param::Text => "string",
            Param::Number => "int",
            Param::Float => "float64",
            Param::Bool => "bool",
            Param::List => "[]interface {}",
            Param::Map => "map[string]interface {}",
        }
    }

    pub(crate) fn takes(self, value: &Value) -> bool {
        match self {
            Param::Any => true,
            Param::Text => matches!(value, Value::Text(_)),
            Param::Number => matches!(value, Value::Number(_)),
            Param::Float => matches!(value, Value::Float(_)),
            Param::Bool => matches!(value, Value::Bool(_)),
            Param::List => matches!(value, Value::List(_) | Value::None),
            Param::Map => matches!(value, Value::Map(_) | Value::None),
        }
    }
}

/// The parameters of a function.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    pub fixed: &'static [Param],
    /// Any number more, each of this type.
    pub rest: Option<Param>,
}

impl Signature {
    pub(crate) fn param(&self, at: usize) -> Param {
        self.fixed.get(at).copied().or(self.rest).unwrap_or(Param::Any)
    }
}

/// Functions of a template besides those of the language. One with the name of one of those replaces it.
pub trait Functions {
    /// The parameters of a function; none if there is no such function.
    fn signature(&self, name: &str) -> Option<Signature>;

    /// Calls a function. The number and the types of its arguments fit its signature.
    ///
    /// # Errors
    /// The reason; the template ends with it.
    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String>;

    /// The parameters of a method of a value; none if it has no such method.
    fn method(&self, of: &Value, name: &str) -> Option<Signature> {
        let _ = (of, name);
        None
    }

    /// Calls a method, as [`Functions::call`] calls a function.
    ///
    /// # Errors
    /// The reason; the template ends with it.
    fn call_method(&self, of: &Value, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let _ = (of, arguments);
        Err(format!("there is no method {name}"))
    }
}
