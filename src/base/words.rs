//! Enums whose variants have a word each.

/// Defines an enum with a word for each variant. The method of the given name returns the word; `parse` finds the
/// variant of a word.
#[macro_export]
macro_rules! words {
    (
        $(#[$meta:meta])*
        $access:vis enum $name:ident: $method:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $access enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// All variants, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word of the variant.
            pub fn $method(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// Returns `None` for an unknown word.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|variant| variant.$method() == text)
            }
        }
    };
}
