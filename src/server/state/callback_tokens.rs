//! Tokens of the processes that run callbacks of DAGs. This process starts and ends them, so it keeps their tokens in
//! memory.

use leoflow_base::sys::mutex::lock;
use leoflow_base::sys::random;
use leoflow_engine::model::keys::TryKey;
use std::collections::HashMap;
use std::sync::Mutex;

/// The tokens of the running callbacks, each with the try whose context its callback gets.
#[derive(Default)]
pub struct CallbackTokens(Mutex<HashMap<String, TryKey>>);

/// A token, which is valid until this is dropped.
pub struct CallbackToken<'a> {
    pub text: String,
    tokens: &'a CallbackTokens,
}

impl CallbackTokens {
    pub fn issue(&self, key: TryKey) -> CallbackToken<'_> {
        let text = random::hex_256();
        lock(&self.0).insert(text.clone(), key);
        CallbackToken { text, tokens: self }
    }

    pub fn find(&self, token: &str) -> Option<TryKey> {
        lock(&self.0).get(token).cloned()
    }
}

impl Drop for CallbackToken<'_> {
    fn drop(&mut self) {
        lock(&self.tokens.0).remove(&self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_engine::model::keys::{InstanceKey, RunKey};

    #[test]
    fn a_token_ends_with_its_callback() {
        let tokens = CallbackTokens::default();
        let instance = InstanceKey::only(RunKey { dag_id: "d".into(), run_id: "r".into() }, "t");
        let key = TryKey { instance, try_number: 1 };
        let (first, second) = (tokens.issue(key.clone()), tokens.issue(key.clone()));
        assert_ne!(first.text, second.text);
        assert_eq!(tokens.find(&first.text), Some(key.clone()));
        let text = first.text.clone();
        drop(first);
        assert_eq!((tokens.find(&text), tokens.find(&second.text)), (None, Some(key)));
    }
}
