//! What a component is made of is counted, and what it makes is followed, for any bytes: in bounded time, and no number without bytes
//! that stand for it.
#![no_main]

#[path = "../../src/component"]
mod component {
    #[allow(dead_code)]
    pub mod blocks;
    #[allow(dead_code)]
    pub mod census;
    #[allow(dead_code)]
    pub mod checks;
    #[allow(dead_code)]
    pub mod cost;
    #[allow(dead_code)]
    pub mod declared_types;
    #[allow(dead_code)]
    pub mod expansion;
    #[allow(dead_code)]
    pub mod limits;
}

mod error {
    #[derive(Debug)]
    pub enum Error {
        Limit,
    }

    impl Error {
        pub fn component_limit(_name: &'static str, _unit: &'static str, limit: u64, found: u64) -> Self {
            assert!(found > limit);
            Self::Limit
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // most of what is tried is to get past the head
    let mut binary = b"\0asm\x0d\0\x01\0".to_vec();
    binary.extend(bytes);
    let limits = component::limits::ComponentLimits { names: Some(100), ..component::limits::ComponentLimits::NONE };
    if let Ok(census) = component::census::Census::take(&binary, &limits) {
        let size = binary.len() as u64;
        assert_eq!(census.size, size);
        assert!(census.types <= size && census.names <= 100 && census.modules <= size && census.code <= size);
        assert!(census.defined.globals <= size && census.defined.elements <= size && census.defined.data <= size);
    }
    let blocks = component::blocks::Blocks::read(&binary, component::blocks::Blocks::default());
    assert!(blocks.loops <= blocks.blocks && blocks.blocks <= binary.len() as u64);
});
