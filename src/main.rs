//! The executable of `leoflow`, `leoflow-server` and `leoflow-agent`.

fn main() -> std::process::ExitCode {
    leoflow::entry::main()
}
