use super::*;

/// A component with a module whose only unit has a hundred thousand entries of one byte, of a thousand flags each.
fn of_many_attributes() -> Vec<u8> {
    let mut abbreviations = vec![1, 0x11, 1, 0, 0, 2, 0x34, 0];
    abbreviations.extend([0x3f, 0x19].repeat(1000)); // DW_AT_external, DW_FORM_flag_present
    abbreviations.extend([0, 0, 0]);
    let mut unit = vec![4, 0, 0, 0, 0, 0, 4, 1];
    unit.extend([2].repeat(100_000));
    unit.push(0);
    let mut info = (unit.len() as u32).to_le_bytes().to_vec();
    info.extend(unit);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (name, content) in [(".debug_abbrev", abbreviations), (".debug_info", info)] {
        let mut custom = vec![name.len() as u8];
        custom.extend(name.as_bytes());
        custom.extend(content);
        section(&mut module, 0, &custom);
    }
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    section(&mut component, 1, &module);
    component
}

fn section(into: &mut Vec<u8>, kind: u8, content: &[u8]) {
    into.push(kind);
    let mut length = content.len();
    while length >= 0x80 {
        into.push(length as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
    into.extend(content);
}

#[test]
fn attributes_without_bytes_are_counted() {
    let component = of_many_attributes();
    let harm = without_harm(&component, &|| Ok(())).map(|(_, harm)| harm);
    assert!(matches!(harm, Ok(Some(Harm::Shared))));
}

#[test]
fn who_waits_no_more_is_heard_at_once() {
    let component = of_many_attributes();
    let asked = std::cell::Cell::new(0);
    let go_on = || {
        asked.set(asked.get() + 1);
        if asked.get() < 3 { Ok(()) } else { Err(Error::Cancelled) }
    };
    assert!(matches!(without_harm(&component, &go_on), Err(Error::Cancelled)));
    assert_eq!(asked.get(), 3);
}
