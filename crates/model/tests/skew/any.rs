//! Values of any readable type, made from random bytes by a deserializer that invents its input.
//!
//! Every member of a record is covered without being named here, also those that are added later.

use serde::de::value::{Error, StrDeserializer};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Texts of all kinds: few, since unknown words are remembered for good.
const TEXTS: [&str; 9] =
    ["10.0.0.1", "web", "", "a b", "node-1", "ünï\"x\\", "2020-01-02T03:04:05.6Z", "10.0.0.1:7946", "0"];
/// Values inside of values end here.
const DEPTH_MAX: usize = 12;

/// Random bytes; when they are used up, zeros, of which the smallest values are made.
pub(crate) struct Source<'b> {
    bytes: &'b [u8],
    depth: usize,
}

impl<'b> Source<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Source<'b> {
        Source { bytes, depth: 0 }
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(*first) % count.max(1)
    }

    pub(crate) fn text(&mut self) -> &'static str {
        TEXTS[self.below(TEXTS.len())]
    }

    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => self.below(256) as u64,
            2 => 1 << (8 * self.below(7)),
            _ => u64::from(u32::MAX) + self.below(256) as u64,
        }
    }

    fn count(&mut self) -> usize {
        if self.depth > DEPTH_MAX { 0 } else { self.below(3) }
    }

    /// Any value of a type; nothing where a text has to be more than a text (an address).
    pub(crate) fn any<'de, T: Deserialize<'de>>(&mut self) -> Option<T> {
        T::deserialize(Any(self)).ok()
    }
}

struct Any<'s, 'b>(&'s mut Source<'b>);

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(<$type>::try_from(self.0.number()).unwrap_or(<$type>::MAX))
        }
    )*};
}

impl<'de> Deserializer<'de> for Any<'_, '_> {
    type Error = Error;

    /// A piece of JSON without a type.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.below(4) {
            0 => visitor.visit_str(self.0.text()),
            1 => visitor.visit_u64(self.0.number()),
            2 => visitor.visit_bool(true),
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.0.below(2) == 1)
    }

    numbers! {
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = i64::try_from(self.0.number()).unwrap_or_default();
        visitor.visit_i64(if self.0.below(3) == 1 { -number } else { number })
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64([0.0, 1.0, 0.25][self.0.below(3)])
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.0.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.0.text())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.below(3) == 0 || self.0.depth > DEPTH_MAX { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.0.count();
        visitor.visit_seq(Items { source: self.0, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { source: self.0, left })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.0.count();
        let keys = TEXTS.into_iter().filter(|key| !key.is_empty()).take(left).collect();
        visitor.visit_map(Members { source: self.0, keys })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let source = self.0;
        // Small structs may need all that they have.
        let keys = fields.iter().copied().filter(|_| fields.len() < 3 || source.below(4) != 0).collect();
        visitor.visit_map(Members { source, keys })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = variants[self.0.below(variants.len())];
        visitor.visit_enum(OneOf { source: self.0, variant })
    }

    forward_to_deserialize_any! {
        i128 u128 f32 char bytes byte_buf unit unit_struct tuple_struct identifier ignored_any
    }
}

struct Items<'s, 'b> {
    source: &'s mut Source<'b>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        inside(self.source, seed).map(Some)
    }
}

struct Members<'s, 'b> {
    source: &'s mut Source<'b>,
    /// The last one comes first.
    keys: Vec<&'static str>,
}

impl<'de> MapAccess<'de> for Members<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.keys.pop().map(|key| seed.deserialize(StrDeserializer::new(key))).transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        inside(self.source, seed)
    }
}

fn inside<'de, T: DeserializeSeed<'de>>(source: &mut Source<'_>, seed: T) -> Result<T::Value, Error> {
    source.depth += 1;
    let value = seed.deserialize(Any(&mut *source));
    source.depth -= 1;
    value
}

struct OneOf<'s, 'b> {
    source: &'s mut Source<'b>,
    variant: &'static str,
}

impl<'de> EnumAccess<'de> for OneOf<'_, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        let variant = seed.deserialize(StrDeserializer::<Error>::new(self.variant))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for OneOf<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        inside(self.source, seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        Any(self.source).deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        Any(self.source).deserialize_struct("", fields, visitor)
    }
}
