//! What macOS keeps of a process's start: the number of its arguments, the path of its program, zeros, the arguments and
//! the environment, each with a NUL at its end. The environment is missing for programs that the system protects.

type Words<'a> = Vec<&'a [u8]>;

/// The arguments and the variables, as `NAME=value`; `None` for bytes of another form.
pub(super) fn arguments_and_environment(bytes: &[u8]) -> Option<(Words<'_>, Words<'_>)> {
    let (count, text) = bytes.split_first_chunk()?;
    let count = usize::try_from(i32::from_ne_bytes(*count)).ok()?;
    let program_end = text.iter().position(|byte| *byte == 0)?;
    let first = program_end + text[program_end..].iter().position(|byte| *byte != 0)?;
    let mut words = text[first..].split(|byte| *byte == 0);
    let arguments = words.by_ref().take(count).collect();
    Some((arguments, words.take_while(|word| !word.is_empty()).collect()))
}

#[cfg(test)]
mod tests {
    use super::arguments_and_environment;

    fn bytes(count: i32, text: &str) -> Vec<u8> {
        [&count.to_ne_bytes(), text.as_bytes()].concat()
    }

    fn texts<'a>(words: &[&'a [u8]]) -> Vec<&'a str> {
        words.iter().map(|word| str::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn parses_arguments_and_environment() {
        for (count, text, arguments, variables) in [
            (2, "/bin/sh\0\0\0\0sh\0-c\0A=1\0B=x y\0\0rest\0", vec!["sh", "-c"], vec!["A=1", "B=x y"]),
            (3, "/bin/sh\0sh\0\0x\0A=1\0", vec!["sh", "", "x"], vec!["A=1"]),
            (1, "/bin/sh\0\0sh\0\0\0", vec!["sh"], vec![]),
            (4, "/bin/sh\0sh\0", vec!["sh", ""], vec![]),
        ] {
            let bytes = bytes(count, text);
            let (found, environment) = arguments_and_environment(&bytes).unwrap();
            assert_eq!((texts(&found), texts(&environment)), (arguments, variables), "{text:?}");
        }
        for other in [&b"\x01"[..], &bytes(-1, "x\0y\0"), &bytes(1, "/bin/sh"), &bytes(1, "/bin/sh\0\0")] {
            assert!(arguments_and_environment(other).is_none(), "{other:?}");
        }
    }
}
