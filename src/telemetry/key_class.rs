//! Classes of keys as an optional label, with a limited number of values.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// The maximum number of classes; further ones become `other`.
pub const MAX_KEY_CLASSES: usize = 64;

/// The maximum length of a class's name, in bytes; longer ones become `other`.
const MAX_CLASS_BYTES: usize = 64;

/// The class of values beyond these limits.
const OTHER: &str = "other";

/// The user's function that maps a key to its class.
#[derive(Clone)]
pub(crate) struct Classifier(Arc<dyn for<'k> Fn(&'k str) -> &'k str + Send + Sync>);

impl Classifier {
    pub(crate) fn new(classify: impl for<'k> Fn(&'k str) -> &'k str + Send + Sync + 'static) -> Self {
        Self(Arc::new(classify))
    }
}

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classifier")
    }
}

/// A value for each class of keys.
pub(crate) struct PerClass<T> {
    classifier: Classifier,
    known: RwLock<HashMap<Box<str>, Arc<T>>>,
    make: Box<dyn Fn(&str) -> T + Send + Sync>,
}

impl<T> PerClass<T> {
    pub(crate) fn new(classifier: Classifier, make: impl Fn(&str) -> T + Send + Sync + 'static) -> Self {
        Self {
            classifier,
            known: RwLock::default(),
            make: Box::new(make),
        }
    }

    /// Returns the value for the class of this key.
    pub(crate) fn of(&self, key: &str) -> Arc<T> {
        let class = match (self.classifier.0)(key) {
            "" => OTHER,
            long if long.len() > MAX_CLASS_BYTES => OTHER,
            class => class,
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(class) {
            return Arc::clone(found);
        }
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // `other` does not count against the limit.
        let full = known.len() - usize::from(known.contains_key(OTHER)) >= MAX_KEY_CLASSES;
        let class = if full && !known.contains_key(class) {
            OTHER
        } else {
            class
        };
        let made = known
            .entry(class.into())
            .or_insert_with(|| Arc::new((self.make)(class)));
        Arc::clone(made)
    }
}

impl<T> fmt::Debug for PerClass<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerClass").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> PerClass<String> {
        let before_slash = |key: &str| -> usize { key.find('/').unwrap_or(key.len()) };
        PerClass::new(Classifier::new(move |key| &key[..before_slash(key)]), str::to_owned)
    }

    #[test]
    fn a_class_is_created_once() {
        let names = names();
        let orders = names.of("orders/1");
        assert_eq!(*orders, "orders");
        assert!(Arc::ptr_eq(&orders, &names.of("orders/2")));
    }

    #[test]
    fn classes_beyond_the_maximum_are_other() {
        let names = names();
        for number in 0..MAX_KEY_CLASSES {
            assert_eq!(*names.of(&format!("class{number}/k")), format!("class{number}"));
        }
        for number in MAX_KEY_CLASSES..10 * MAX_KEY_CLASSES {
            assert_eq!(*names.of(&format!("class{number}/k")), OTHER);
        }
        assert_eq!(*names.of("class7/again"), "class7", "a known class keeps its name");
        assert_eq!(names.known.read().unwrap().len(), MAX_KEY_CLASSES + 1);
    }

    #[test]
    fn an_invalid_class_name_is_other() {
        let names = names();
        assert_eq!(*names.of("/nothing"), OTHER);
        assert_eq!(*names.of(&"k".repeat(MAX_CLASS_BYTES + 1)), OTHER);
        for number in 0..MAX_KEY_CLASSES {
            assert_eq!(
                *names.of(&format!("class{number}/k")),
                format!("class{number}"),
                "`other` does not count"
            );
        }
    }
}
