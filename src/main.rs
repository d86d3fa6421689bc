//! One executable, three names.

fn main() -> std::process::ExitCode {
    leoflow::entry::main()
}
