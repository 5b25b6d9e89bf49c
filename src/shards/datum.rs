//! A value in a map of settings, in a self-describing format, before the type of its setting is known.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// The text of a value, which is wiped when it is dropped, because it may be a secret.
type Text = Zeroizing<String>;

/// A value.
pub(crate) enum Datum {
    /// No value, as with `null`.
    Nothing,
    Text(Text),
    Truth(bool),
    /// A whole number, as text.
    Whole(Text),
    /// A number with a fraction, as text.
    Fraction(Text),
    Texts(Vec<Text>),
    /// A value of a type that no setting has.
    Other(&'static str),
}

/// The type of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueKind {
    Text,
    Truth,
    Whole,
    Number,
    /// A text with commas, or a list of texts.
    Texts,
}

impl Datum {
    /// Returns the value as one text, or `None` if there is no value. A text is accepted for every type; numbers,
    /// booleans and lists only for settings of these types.
    ///
    /// # Errors
    ///
    /// The type of the value and the expected type. The value is not shown, because it may be a secret.
    pub(crate) fn text_of(self, kind: ValueKind) -> Result<Option<Text>, String> {
        match (self, kind) {
            (Self::Nothing, _) => Ok(None),
            (Self::Text(text), _)
            | (Self::Whole(text), ValueKind::Whole | ValueKind::Number)
            | (Self::Fraction(text), ValueKind::Number) => Ok(Some(text)),
            (Self::Truth(truth), ValueKind::Truth) => Ok(Some(Text::new(truth.to_string()))),
            (Self::Texts(texts), ValueKind::Texts) => {
                let texts: Vec<&str> = texts.iter().map(|text| text.as_str()).collect();
                Ok(Some(Text::new(texts.join(","))))
            }
            (other, kind) => Err(format!("it is {}, and should be {}", other.noun(), kind.noun())),
        }
    }

    /// Returns the value as a list of texts.
    ///
    /// # Errors
    ///
    /// The type of the value and the expected type.
    pub(crate) fn list(self) -> Result<Option<Vec<String>>, String> {
        match self {
            Self::Nothing => Ok(None),
            Self::Texts(texts) => Ok(Some(texts.iter().map(|text| String::clone(text)).collect())),
            other => Err(format!("it is {}, and should be a list of texts", other.noun())),
        }
    }

    fn noun(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Text(_) => "a text",
            Self::Truth(_) => "true or false",
            Self::Whole(_) => "a number",
            Self::Fraction(_) => "a number with a fraction",
            Self::Texts(_) => "a list of texts",
            Self::Other(noun) => noun,
        }
    }
}

impl ValueKind {
    fn noun(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Truth => "true or false",
            Self::Whole => "a whole number",
            Self::Number => "a number",
            Self::Texts => "a list of texts",
        }
    }
}

impl<'de> Deserialize<'de> for Datum {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

fn text(text: impl ToString) -> Text {
    Text::new(text.to_string())
}

impl<'de> Visitor<'de> for Reader {
    type Value = Datum;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value of a setting: a text, a number, true or false, or a list of texts")
    }

    fn visit_str<E>(self, value: &str) -> Result<Datum, E> {
        Ok(Datum::Text(text(value)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Datum, E> {
        Ok(Datum::Truth(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Datum, E> {
        Ok(Datum::Whole(text(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Datum, E> {
        Ok(Datum::Whole(text(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Datum, E> {
        Ok(Datum::Fraction(text(value)))
    }

    fn visit_unit<E>(self) -> Result<Datum, E> {
        Ok(Datum::Nothing)
    }

    fn visit_none<E>(self) -> Result<Datum, E> {
        Ok(Datum::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Datum, D::Error> {
        Datum::deserialize(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Datum, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(item) = seq.next_element()? {
            texts = match (item, texts) {
                (Datum::Text(item), Some(mut texts)) => {
                    texts.push(item);
                    Some(texts)
                }
                _ => None,
            };
        }
        Ok(texts.map_or(Datum::Other("a list with values that are not texts"), Datum::Texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Datum, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Datum::Other("a map"))
    }
}
