//! How deep the blocks of functions are nested, found without recursion.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

/// How deep blocks are nested in function bodies: the most of any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// Blocks of every kind in each other.
    pub blocks: u64,
    /// The loops among them: compiling takes the square of their number.
    pub loops: u64,
}

impl Blocks {
    /// Bodies that cannot be deeper than `most` are not read: those that have fewer bytes that could begin a block, or a loop.
    /// Counting bytes is many times faster than reading operators, and leaves next to nothing of most components to be read.
    pub(crate) fn read(binary: &[u8], most: Self) -> Self {
        let mut deepest = Self::default();
        for payload in Parser::new(0).parse_all(binary) {
            match payload {
                Ok(Payload::CodeSectionEntry(body)) if may_be_deeper(body.as_bytes(), most) => deepest.read_body(&body),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        deepest
    }

    fn read_body(&mut self, body: &FunctionBody<'_>) {
        // what is open: whether it is a loop
        let mut open = Vec::new();
        let mut loops = 0u64;
        let Ok(mut operators) = body.get_operators_reader() else { return };
        while !operators.eof() {
            let Ok(operator) = operators.read() else { return };
            match operator {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } | Operator::TryTable { .. } => {
                    let is_loop = matches!(operator, Operator::Loop { .. });
                    open.push(is_loop);
                    loops += u64::from(is_loop);
                    self.blocks = self.blocks.max(open.len() as u64);
                    self.loops = self.loops.max(loops);
                }
                Operator::End => loops -= u64::from(open.pop().unwrap_or(false)),
                _ => {}
            }
        }
    }
}

fn may_be_deeper(body: &[u8], most: Blocks) -> bool {
    const BLOCK: u8 = 0x02;
    const LOOP: u8 = 0x03;
    const IF: u8 = 0x04;
    const TRY_TABLE: u8 = 0x1f;
    let count = |begins: fn(u8) -> bool| body.iter().filter(|byte| begins(**byte)).count() as u64;
    count(|byte| matches!(byte, BLOCK | LOOP | IF | TRY_TABLE)) > most.blocks || count(|byte| byte == LOOP) > most.loops
}
