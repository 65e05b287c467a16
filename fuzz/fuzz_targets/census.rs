//! What a component is made of is counted, and what it makes is followed, for any bytes: in bounded time, and no number without bytes
//! that stand for it.
#![no_main]

mod http {
    #[path = "../../../src/component/blocks.rs"]
    #[allow(dead_code)]
    pub mod blocks;
    #[path = "../../../src/component/census.rs"]
    #[allow(dead_code)]
    pub mod census;
    #[path = "../../../src/component/limits.rs"]
    #[allow(dead_code)]
    pub mod limits;
    #[path = "../../../src/component/cost.rs"]
    #[allow(dead_code)]
    pub mod cost;
    #[path = "../../../src/component/declared_types.rs"]
    #[allow(dead_code)]
    pub mod declared_types;
    #[path = "../../../src/component/expansion.rs"]
    #[allow(dead_code)]
    pub mod expansion;
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
    let limits = component_limits::ComponentLimits { names: Some(100), ..component_limits::ComponentLimits::NONE };
    if let Ok(census) = census::Census::take(&binary, &limits) {
        let size = binary.len() as u64;
        assert_eq!(census.size, size);
        assert!(census.types <= size && census.names <= 100 && census.modules <= size && census.code <= size);
        assert!(census.defined.globals <= size && census.defined.elements <= size && census.defined.data <= size);
    }
    let blocks = blocks::Blocks::read(&binary, blocks::Blocks::default());
    assert!(blocks.loops <= blocks.blocks && blocks.blocks <= binary.len() as u64);
});
