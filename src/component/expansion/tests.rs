use super::*;

fn of(items: Vec<Item<'static>>) -> StaticComponent<'static> {
    StaticComponent { items, ..StaticComponent::default() }
}

fn instantiate(component: u32) -> Item<'static> {
    Item::Instantiate { component, args: vec![] }
}

#[test]
fn what_is_instantiated_twice_by_each_of_40_is_counted_and_not_made() {
    // each has the next one inside, and instantiates it twice; the last has a module
    let mut components: Vec<_> =
        (1..=40).map(|inner| of(vec![Item::Component(inner), instantiate(0), instantiate(0)])).collect();
    components.push(of(vec![Item::Module(0), Item::InstantiateModule(0)]));
    let cost = expand(&components, &[Cost::of_module()]);
    assert_eq!(cost.core_instances, 1 << 40);
    assert_eq!(cost.instances, (1 << 41) - 1 + (1 << 40));
}

#[test]
fn what_is_seen_around_a_component_is_followed() {
    // the second takes the module of the first, and is instantiated three times
    let components = [
        of(vec![Item::Module(0), Item::Component(1), instantiate(0), instantiate(0), instantiate(0)]),
        of(vec![Item::AliasOuter { sort: Sort::Module, count: 1, index: 0 }, Item::InstantiateModule(0)]),
    ];
    assert_eq!(expand(&components, &[Cost::of_module()]).core_instances, 3);
}

#[test]
fn a_component_that_is_handed_in_is_followed() {
    // the second makes of any component one that instantiates it twice; it is applied to its own results
    let twice = || {
        of(vec![
            Item::Import { sort: Sort::Component, name: "c" },
            Item::Component(2),
            Item::Export { sort: Sort::Component, name: "twice", index: 1 },
        ])
    };
    let inner =
        || of(vec![Item::AliasOuter { sort: Sort::Component, count: 1, index: 0 }, instantiate(0), instantiate(0)]);
    let mut first = vec![Item::Component(3), Item::Component(1)];
    for level in 0..10 {
        let given = if level == 0 { 0 } else { level + 1 };
        first.push(Item::Instantiate { component: 1, args: vec![("c", Sort::Component, given)] });
        first.push(Item::AliasExport { sort: Sort::Component, instance: level, name: "twice" });
    }
    first.push(instantiate(11));
    let last = || of(vec![Item::Module(0), Item::InstantiateModule(0)]);
    let components = [of(first), twice(), inner(), last()];
    assert_eq!(expand(&components, &[Cost::of_module()]).core_instances, 1 << 10);
}

#[test]
fn what_cannot_be_followed_to_its_end_is_endless() {
    // each instantiates the next twice with an argument that is a module, so that none is like another
    let mut components: Vec<_> = (1..=40)
        .map(|inner| {
            let again = || Item::Instantiate { component: 0, args: vec![("m", Sort::Module, 0)] };
            of(vec![Item::Import { sort: Sort::Module, name: "m" }, Item::Component(inner), again(), again()])
        })
        .collect();
    components.push(of(vec![Item::Import { sort: Sort::Module, name: "m" }, Item::InstantiateModule(0)]));
    if let Some(first) = components.first_mut().and_then(|first| first.items.first_mut()) {
        *first = Item::Module(0);
    }
    assert_eq!(expand(&components, &[Cost::of_module()]), Cost::ENDLESS);
}

#[test]
fn what_does_not_exist_costs_nothing_and_ends() {
    let items = vec![
        instantiate(7),
        Item::InstantiateModule(9),
        Item::AliasOuter { sort: Sort::Module, count: u32::MAX, index: u32::MAX },
    ];
    assert_eq!(expand(&[of(items)], &[]).core_instances, 0);
}
