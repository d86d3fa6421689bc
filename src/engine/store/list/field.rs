//! Fields that lists are ordered and filtered by. Callers outside the store name a field; only the store knows its
//! column.

use super::column::{Column, FieldType};
use super::conditions::Conditions;

/// The fields of one entity. Implemented by [`list_fields`].
pub trait ListField: Copy + 'static {
    /// Filters of this entity that cannot be expressed as a test of one field; `()` if there are none.
    type Filter: Filter;
    /// Fields that identify a row: together unique, and never NULL, so that pages do not overlap.
    const KEY: &'static [Self];

    #[doc(hidden)]
    fn column(self) -> Column;

    fn field_type(self) -> FieldType {
        self.column().field_type
    }
}

/// Filters of an entity; the default selects every row.
pub trait Filter: Default {
    #[doc(hidden)]
    fn add_to(self, conditions: &mut Conditions);
}

impl Filter for () {
    fn add_to(self, _: &mut Conditions) {}
}

/// Defines the fields of an entity, each with the type and SQL of its column.
macro_rules! list_fields {
    (
        $(#[$doc:meta])*
        $name:ident, key: [$($key:ident),+] $(, filter: $filter:ty)?;
        $($(#[$variant_doc:meta])* $variant:ident = $field_type:ident($sql:expr),)+
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $crate::store::list::field::ListField for $name {
            type Filter = $crate::store::list::field::filter_or_none!($($filter)?);
            const KEY: &'static [Self] = &[$(Self::$key),+];

            fn column(self) -> $crate::store::list::column::Column {
                match self {
                    $(Self::$variant => $crate::store::list::column::Column::$field_type($sql),)+
                }
            }
        }
    };
}

macro_rules! filter_or_none {
    () => {
        ()
    };
    ($filter:ty) => {
        $filter
    };
}

/// Defines the filters of an entity that test one value each; `None` tests nothing.
macro_rules! filter {
    (
        $(#[$doc:meta])*
        pub struct $name:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty = $sql:expr,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Option<$type>,)+
        }

        impl $crate::store::list::field::Filter for $name {
            fn add_to(self, conditions: &mut $crate::store::list::conditions::Conditions) {
                $(conditions.maybe($sql, self.$field);)+
            }
        }
    };
}

pub(crate) use {filter, filter_or_none, list_fields};
