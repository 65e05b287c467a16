//! What instantiating a component makes, found without making it.
//!
//! A component may instantiate those inside of it many times, and each of them others: 20 levels that do so twice are a
//! million instances, in a few hundred bytes. So what a component costs is found once and added for each time that it is
//! instantiated. Components and modules can be handed around (arguments, exports, aliases of what encloses them), so this
//! follows them as instantiation would; what it has followed further than `MOST_STEPS` counts as endless.

use std::collections::{BTreeMap, HashMap};

use crate::component::cost::{ADAPTER, COMPONENT_INSTANCE, Cost};

/// A component as it is written, as far as it says what is instantiated.
#[derive(Default)]
pub(crate) struct StaticComponent<'a> {
    pub items: Vec<Item<'a>>,
    pub adapters: u64,
    pub definitions: u64,
}

impl<'a> StaticComponent<'a> {
    pub(crate) fn push(&mut self, item: Item<'a>, is_kept: bool) {
        if is_kept {
            self.items.push(item);
        }
    }
}

/// What can hold something that can be instantiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Module,
    Component,
    Instance,
}

/// Each makes an entry in an index space of its component.
pub(crate) enum Item<'a> {
    Module(usize),
    Component(usize),
    InstantiateModule(u32),
    Instantiate { component: u32, args: Vec<(&'a str, Sort, u32)> },
    Group(Vec<(&'a str, Sort, u32)>),
    AliasExport { sort: Sort, instance: u32, name: &'a str },
    AliasOuter { sort: Sort, count: u32, index: u32 },
    Import { sort: Sort, name: &'a str },
    Export { sort: Sort, name: &'a str, index: u32 },
}

/// `None`: the host's, of which nothing is known. The host provides neither modules nor components: what needs them cannot
/// be linked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Value {
    Module(Option<usize>),
    Component(Option<Closure>),
    /// Its number among those that hold modules or components; 0 holds none.
    Instance(usize),
}

impl Value {
    fn unknown(sort: Sort) -> Self {
        match sort {
            Sort::Module => Self::Module(None),
            Sort::Component => Self::Component(None),
            Sort::Instance => Self::Instance(0),
        }
    }

    fn is_empty(self) -> bool {
        self == Self::Instance(0)
    }
}

/// A component with what it sees around it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Closure {
    component: usize,
    /// The frame in which it is written; none if it takes nothing from there.
    around: Option<usize>,
}

/// The index spaces of a component that is being instantiated.
#[derive(Default)]
struct Frame {
    around: Option<usize>,
    modules: Vec<Option<usize>>,
    components: Vec<Option<Closure>>,
    instances: Vec<usize>,
}

impl Frame {
    fn get(&self, sort: Sort, index: u32) -> Value {
        let index = index as usize;
        match sort {
            Sort::Module => Value::Module(self.modules.get(index).copied().flatten()),
            Sort::Component => Value::Component(self.components.get(index).copied().flatten()),
            Sort::Instance => Value::Instance(self.instances.get(index).copied().unwrap_or(0)),
        }
    }

    fn push(&mut self, value: Value) {
        match value {
            Value::Module(module) => self.modules.push(module),
            Value::Component(component) => self.components.push(component),
            Value::Instance(instance) => self.instances.push(instance),
        }
    }
}

/// The steps of looking a name up: it may have a hundred thousand bytes, and begin like all others.
fn weight(name: &str) -> usize {
    1 + name.len() / 64
}

/// What is being instantiated.
struct Activation<'a> {
    closure: Closure,
    frame: usize,
    next: usize,
    cost: Cost,
    args: HashMap<&'a str, Value>,
    exports: BTreeMap<&'a str, Value>,
}

/// A million lines of instantiation are more than any component is worth, and take a tenth of a second.
const MOST_STEPS: usize = 1_000_000;

struct Expansion<'a, 'b> {
    components: &'b [StaticComponent<'a>],
    modules: &'b [Cost],
    /// Which components take something from around them.
    captures: Vec<bool>,
    frames: Vec<Frame>,
    instances: Vec<BTreeMap<&'a str, Value>>,
    known: HashMap<Closure, (Cost, usize)>,
    steps: usize,
}

/// What an instance of the first component costs.
pub(crate) fn expand(components: &[StaticComponent<'_>], modules: &[Cost]) -> Cost {
    let mut expansion = Expansion {
        components,
        modules,
        captures: captures(components),
        frames: Vec::new(),
        instances: vec![BTreeMap::new()],
        known: HashMap::new(),
        steps: 0,
    };
    expansion.run().unwrap_or(Cost::ENDLESS)
}

/// Those that have an alias of something around them, and those around which it leads.
fn captures(components: &[StaticComponent<'_>]) -> Vec<bool> {
    let mut reach: Vec<u32> = Vec::with_capacity(components.len());
    for component in components {
        let outer = component.items.iter().filter_map(|item| match item {
            Item::AliasOuter { count, .. } => Some(*count),
            _ => None,
        });
        reach.push(outer.max().unwrap_or(0));
    }
    // those inside stand behind those around them
    for number in (0..components.len()).rev() {
        let inner =
            components.get(number).into_iter().flat_map(|component| &component.items).filter_map(|item| match item {
                Item::Component(inner) => reach.get(*inner).map(|reach| reach.saturating_sub(1)),
                _ => None,
            });
        let inner = inner.max().unwrap_or(0);
        if let Some(own) = reach.get_mut(number) {
            *own = (*own).max(inner);
        }
    }
    reach.into_iter().map(|reach| reach > 0).collect()
}

impl<'a> Expansion<'a, '_> {
    fn begin(&mut self, closure: Closure, args: HashMap<&'a str, Value>) -> Activation<'a> {
        let frame = self.frames.len();
        self.frames.push(Frame { around: closure.around, ..Frame::default() });
        let mut cost = Cost { instances: 1, host: COMPONENT_INSTANCE, ..Cost::default() };
        if let Some(component) = self.components.get(closure.component) {
            let has_code = component.items.iter().any(|item| matches!(item, Item::InstantiateModule(_)));
            cost.with_code = u64::from(has_code);
            cost.adapters = component.adapters;
            cost.host += (component.adapters.saturating_add(component.definitions)).saturating_mul(ADAPTER);
        }
        Activation { closure, frame, next: 0, cost, args, exports: BTreeMap::new() }
    }

    /// `None`: it goes on for too long.
    fn run(&mut self) -> Option<Cost> {
        let mut active = vec![self.begin(Closure { component: 0, around: None }, HashMap::new())];
        loop {
            let mut now = active.pop()?;
            let components = self.components;
            let Some(item) = components.get(now.closure.component).and_then(|component| component.items.get(now.next))
            else {
                let exported = self.intern(std::mem::take(&mut now.exports));
                if now.args.is_empty() {
                    self.known.insert(now.closure, (now.cost, exported));
                }
                let Some(outer) = active.last_mut() else { return Some(now.cost) };
                outer.cost.add(&now.cost);
                self.frame(outer.frame)?.push(Value::Instance(exported));
                continue;
            };
            now.next += 1;
            self.spend(1)?;
            if let Some(begun) = self.step(&mut now, item)? {
                active.push(now);
                active.push(begun);
            } else {
                active.push(now);
            }
        }
    }

    /// `None`: there is nothing left.
    fn spend(&mut self, steps: usize) -> Option<()> {
        self.steps = self.steps.saturating_add(steps);
        (self.steps <= MOST_STEPS).then_some(())
    }

    /// Before so many names are gone through, each time that they are.
    fn look_up(&mut self, names: &[(&str, Sort, u32)]) -> Option<()> {
        names.iter().try_for_each(|(name, ..)| self.spend(weight(name)))
    }

    fn frame(&mut self, number: usize) -> Option<&mut Frame> {
        self.frames.get_mut(number)
    }

    /// Gives what has to be instantiated first.
    fn step(&mut self, now: &mut Activation<'a>, item: &Item<'a>) -> Option<Option<Activation<'a>>> {
        let value = match item {
            Item::Module(module) => Value::Module(Some(*module)),
            Item::Component(component) => {
                let captures = self.captures.get(*component).copied().unwrap_or(true);
                Value::Component(Some(Closure { component: *component, around: captures.then_some(now.frame) }))
            }
            Item::InstantiateModule(index) => {
                if let Value::Module(Some(module)) = self.frame(now.frame)?.get(Sort::Module, *index)
                    && let Some(cost) = self.modules.get(module)
                {
                    now.cost.add(cost);
                }
                return Some(None);
            }
            Item::Instantiate { component, args } => {
                self.look_up(args)?;
                let frame = self.frame(now.frame)?;
                let Value::Component(Some(closure)) = frame.get(Sort::Component, *component) else {
                    frame.push(Value::Instance(0));
                    return Some(None);
                };
                let args: HashMap<&str, Value> = args
                    .iter()
                    .map(|(name, sort, index)| (*name, frame.get(*sort, *index)))
                    .filter(|(_, value)| !value.is_empty())
                    .collect();
                if args.is_empty()
                    && let Some((cost, exported)) = self.known.get(&closure).copied()
                {
                    now.cost.add(&cost);
                    self.frame(now.frame)?.push(Value::Instance(exported));
                    return Some(None);
                }
                return Some(Some(self.begin(closure, args)));
            }
            Item::Group(exports) => {
                self.look_up(exports)?;
                let frame = self.frame(now.frame)?;
                let exports = exports.iter().map(|(name, sort, index)| (*name, frame.get(*sort, *index))).collect();
                Value::Instance(self.intern(exports))
            }
            Item::AliasExport { sort, instance, name } => {
                self.spend(weight(name))?;
                let instance = match self.frame(now.frame)?.get(Sort::Instance, *instance) {
                    Value::Instance(number) => number,
                    Value::Module(_) | Value::Component(_) => 0,
                };
                let held = self.instances.get(instance).and_then(|exports| exports.get(name)).copied();
                held.unwrap_or(Value::unknown(*sort))
            }
            Item::AliasOuter { sort, count, index } => {
                let mut frame = Some(now.frame);
                for _ in 0..*count {
                    frame = frame.and_then(|frame| self.frames.get(frame)).and_then(|frame| frame.around);
                    if frame.is_none() {
                        break;
                    }
                    self.spend(1)?;
                }
                let around = frame.and_then(|frame| self.frames.get(frame));
                around.map_or(Value::unknown(*sort), |around| around.get(*sort, *index))
            }
            Item::Import { sort, name } => {
                self.spend(weight(name))?;
                now.args.get(name).copied().unwrap_or(Value::unknown(*sort))
            }
            Item::Export { sort, name, index } => {
                self.spend(weight(name))?;
                let value = self.frame(now.frame)?.get(*sort, *index);
                if !value.is_empty() {
                    now.exports.insert(name, value);
                }
                value
            }
        };
        self.frame(now.frame)?.push(value);
        Some(None)
    }

    fn intern(&mut self, mut exports: BTreeMap<&'a str, Value>) -> usize {
        exports.retain(|_, value| !value.is_empty());
        if exports.is_empty() {
            return 0;
        }
        self.instances.push(exports);
        self.instances.len() - 1
    }
}

#[cfg(test)]
mod tests;
