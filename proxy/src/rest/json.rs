//! A cursor over JSON text.
//!
//! The caller pulls what it expects. Numbers come as text, so that each is parsed once, into the type of its tensor,
//! with one rounding; serde_json would round twice on the way to `f32`. A value whose type is not known yet is skipped
//! and read later from its place.

use std::{borrow::Cow, fmt, str};

/// Arrays and objects inside each other in a value that is skipped.
const MAX_DEPTH: usize = 128;

/// Reads JSON from the front.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// The text is not JSON, or not what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// Offset in the text.
    at: usize,
    what: &'static str,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.text.len() - self.at
    }

    /// Whether nothing but whitespace is left.
    pub(super) fn is_end(&mut self) -> bool {
        self.skip_space();
        self.at == self.text.len()
    }

    /// Kind of the next value, which stays where it is.
    pub(super) fn peek(&mut self) -> Result<Kind, Malformed> {
        self.skip_space();
        match self.text.get(self.at) {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => Err(self.malformed("expected a value")),
            None => Err(self.malformed("unexpected end of the text")),
        }
    }

    /// Takes the opening bracket of an array.
    pub(super) fn enter_array(&mut self) -> Result<(), Malformed> {
        self.take(b'[', "expected an array")
    }

    /// Takes the opening brace of an object.
    pub(super) fn enter_object(&mut self) -> Result<(), Malformed> {
        self.take(b'{', "expected an object")
    }

    /// Whether another element of an array follows; takes the comma before it, or the closing bracket.
    pub(super) fn next_element(&mut self, first: &mut bool) -> Result<bool, Malformed> {
        self.next_item(b']', first, "expected a comma or the end of the array")
    }

    /// The key of the next member of an object, or `None` and the closing brace is taken.
    pub(super) fn next_key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>, Malformed> {
        if !self.next_item(b'}', first, "expected a comma or the end of the object")? {
            return Ok(None);
        }
        let key = self.string()?;
        self.take(b':', "expected a colon")?;
        Ok(Some(key))
    }

    /// A string, its escapes decoded. A lone surrogate becomes U+FFFD.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Malformed> {
        self.take(b'"', "expected a string")?;
        let plain = self.plain()?;
        if self.text.get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut string = plain.to_owned();
        loop {
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(string));
                }
                Some(_) => string.push(self.escape()?),
                None => return Err(self.malformed("unexpected end of a string")),
            }
            string.push_str(self.plain()?);
        }
    }

    /// The text of a number.
    pub(super) fn number(&mut self) -> Result<&'a str, Malformed> {
        self.skip_space();
        let start = self.at;
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.text.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        str::from_utf8(&self.text[start..self.at]).map_err(|_| self.malformed("expected a number"))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self) -> Result<bool, Malformed> {
        self.skip_space();
        if self.literal(b"true") {
            Ok(true)
        } else if self.literal(b"false") {
            Ok(false)
        } else {
            Err(self.malformed("expected true or false"))
        }
    }

    /// `null`.
    pub(super) fn null(&mut self) -> Result<(), Malformed> {
        self.skip_space();
        if self.literal(b"null") { Ok(()) } else { Err(self.malformed("expected null")) }
    }

    /// Takes `null` if it is next.
    pub(super) fn is_null(&mut self) -> Result<bool, Malformed> {
        if self.peek()? != Kind::Null {
            return Ok(false);
        }
        self.null().map(|()| true)
    }

    /// Passes over any value.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_at(0)
    }

    /// An error at this place.
    #[cold]
    pub(super) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    fn skip_at(&mut self, depth: usize) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(self.malformed("too deeply nested"));
        }
        let mut first = true;
        match self.peek()? {
            Kind::Object => {
                self.enter_object()?;
                while self.next_key(&mut first)?.is_some() {
                    self.skip_at(depth + 1)?;
                }
                Ok(())
            }
            Kind::Array => {
                self.enter_array()?;
                while self.next_element(&mut first)? {
                    self.skip_at(depth + 1)?;
                }
                Ok(())
            }
            Kind::String => self.string().map(drop),
            Kind::Number => self.number().map(drop),
            Kind::Bool => self.boolean().map(drop),
            Kind::Null => self.null(),
        }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        self.skip_space();
        if self.text.get(self.at) != Some(&byte) {
            return Err(self.malformed(what));
        }
        self.at += 1;
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn next_item(&mut self, close: u8, first: &mut bool, what: &'static str) -> Result<bool, Malformed> {
        self.skip_space();
        let first = std::mem::replace(first, false);
        match self.text.get(self.at) {
            Some(&byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            Some(_) if first => Ok(true),
            Some(b',') => {
                self.at += 1;
                self.skip_space();
                match self.text.get(self.at) {
                    Some(&byte) if byte == close => Err(self.malformed("expected a value")),
                    _ => Ok(true),
                }
            }
            Some(_) => Err(self.malformed(what)),
            None => Err(self.malformed("unexpected end of the text")),
        }
    }

    /// Text of a string up to its next escape or its end.
    fn plain(&mut self) -> Result<&'a str, Malformed> {
        let start = self.at;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' | b'\\' => break,
                0..0x20 => return Err(self.malformed("control character in a string")),
                _ => self.at += 1,
            }
        }
        str::from_utf8(&self.text[start..self.at]).map_err(|_| self.malformed("string is not UTF-8"))
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        let bad = self.malformed("invalid escape");
        let code = self.text.get(self.at + 1).ok_or(bad)?;
        self.at += 2;
        Ok(match code {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex().ok_or(bad)?;
                if let (0xd800..0xdc00, true) = (high, self.text[self.at..].starts_with(b"\\u")) {
                    let after_high = self.at;
                    self.at += 2;
                    let low = self.hex().ok_or(bad)?;
                    if let 0xdc00..0xe000 = low {
                        let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    self.at = after_high; // the second one is a character of its own
                }
                char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(bad),
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.text.get(self.at) {
            self.at += 1;
        }
        if start == self.at { Err(self.malformed("expected a digit")) } else { Ok(()) }
    }
}

// === impl Malformed ===

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid JSON at byte {}: {}", self.at, self.what)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &str) -> Result<String, Malformed> {
        Reader::new(text.as_bytes()).string().map(Cow::into_owned)
    }

    #[test]
    fn surrogates_are_paired_or_replaced() {
        assert_eq!(string(r#""\ud83d\ude00""#).as_deref(), Ok("\u{1f600}"));
        assert_eq!(string(r#""\ud83dx""#).as_deref(), Ok("\u{fffd}x"));
        assert_eq!(string(r#""\ud83d\u0041""#).as_deref(), Ok("\u{fffd}A"));
        assert_eq!(string(r#""\udc00""#).as_deref(), Ok("\u{fffd}"));
        assert!(string(r#""\u00g0""#).is_err());
    }

    #[test]
    fn a_skipped_value_may_be_128_deep() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Reader::new(nested(MAX_DEPTH).as_bytes()).skip().is_ok());
        assert!(Reader::new(nested(100_000).as_bytes()).skip().is_err());
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json(text in r#"[\[\]{}:,"\\u0-9a-f.eE+\- tnrulsx]{0,24}"#) {
            let mut reader = Reader::new(text.as_bytes());
            let ours = reader.skip().is_ok() && reader.is_end();
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // Lone surrogates and numbers beyond f64 are JSON by its grammar; serde_json refuses them.
            if theirs.is_ok() || !(text.contains("\\u") || text.contains(['e', 'E'])) {
                prop_assert_eq!(ours, theirs.is_ok(), "{}", text);
            }
        }

        #[test]
        fn strings_come_back(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(string(&json), Ok(text));
        }
    }
}
