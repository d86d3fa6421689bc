//! Parts of the Python package that stand in for something of Python's own, against the original.

use std::process::Command;

#[test]
fn says_what_functions_take_as_inspect_does() {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/src/python/package");
    let output = Command::new("python3")
        .args(["-I", "-B", "-c", include_str!("python_package_signatures.py"), package])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2728 calls compared\n");
}
