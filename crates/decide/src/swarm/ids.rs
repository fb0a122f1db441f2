//! New ids for decisions that create objects, handed in by the caller.

/// Gives ids of Docker's form: 25 characters of base 36. Never the same twice.
pub trait Ids {
    fn id(&mut self) -> String;
}

impl<F: FnMut() -> String> Ids for F {
    fn id(&mut self) -> String {
        self()
    }
}
