//! What PostgreSQL says and does, in the user's words.

use super::{BELONG_TOGETHER, Error, RESTORE};
use crate::postgres::PgError;
use crate::postgres::private::PrivateError;
use crate::postgres::words::{Cause, Words};

impl Error {
    pub(super) fn damaged_datastore(reason: impl std::fmt::Display) -> Self {
        Self::damage(format!("the datastore is damaged: {reason}"))
            .hint("leoflow lite backups list")
            .hint("leoflow lite restore --input FILE --force sets what is damaged aside, and restores")
    }
}

impl From<PgError> for Error {
    fn from(error: PgError) -> Self {
        match &error {
            PgError::WrongPassword => {
                Self { is_damage: true, ..Self::refused(&error) }.hint(BELONG_TOGETHER).hint(RESTORE)
            }
            damage if damage.is_damage() => Self::damaged_datastore(damage),
            PgError::Query(_) => {
                Self::failed(format!("the datastore refused: {error}")).hint("leoflow lite logs postgres")
            }
            _ => Self::failed(&error).hint("leoflow lite status").hint("leoflow lite logs postgres"),
        }
    }
}

impl From<PrivateError> for Error {
    fn from(error: PrivateError) -> Self {
        match error {
            PrivateError::NotReady(error @ PgError::WrongPassword) => error.into(),
            PrivateError::NotReady(error) if error.is_damage() => error.into(),
            PrivateError::Ended { words: Some(Words { cause: Cause::Damaged, .. }), .. } => {
                Self::damage(error).hint("leoflow lite backups list").hint("leoflow lite restore --input FILE --force")
            }
            _ => Self::failed(error).hint("leoflow lite logs postgres").hint("leoflow doctor"),
        }
    }
}
