//! A mesh as tables.

use std::fmt::Write;

use super::{
    age, bar, bytes,
    table::{Cell, Column, Screen, Tone},
};
use crate::observe::{Instance, Mesh, Model, State};

/// The mesh as tables: models, the most used first; instances with their memory; proxies; what is wrong.
pub(crate) fn tables(mesh: &Mesh, screen: Screen, filter: &str) -> String {
    let models = [
        Column::narrow("MODEL", 12),
        Column::text("STATE"),
        Column::number("COPIES"),
        Column::number("SIZE"),
        Column::number("CALLS/S"),
        Column::number("USED"),
        Column::narrow("WHERE", 8),
    ];
    let rows: Vec<_> = mesh.by_heat(filter).into_iter().map(|(name, model)| model_row(mesh, name, model)).collect();
    let mut text = screen.table(&models, &rows);
    if rows.is_empty() {
        text.push_str(if filter.is_empty() { "no models yet\n" } else { "no model has such a name\n" });
    }
    text.push('\n');
    let wide = screen.width.is_none_or(|width| width >= 110);
    let instances = [
        Column::narrow("INSTANCE", 12),
        Column::narrow("RUNTIME", 8),
        Column::text("STATE"),
        Column::text("MEMORY"),
        Column::text("TAKEN"),
        Column::number("READY"),
        Column::number("QUEUE"),
    ];
    let rows: Vec<_> = mesh.instances.iter().map(|(id, it)| instance_row(id, it, wide)).collect();
    text.push_str(&screen.table(&instances, &rows));
    text.push_str(&screen.paint("memory: # loaded, + reserved for loads, - being freed, . free\n", Tone::Faint));
    text.push('\n');
    text.push_str(&screen.wrap(&proxies(mesh)));
    text.push('\n');
    for (subject, what) in mesh.wrongs() {
        let line = screen.wrap(&format!("! {subject}: {what}"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", screen.paint(&line, Tone::Bad));
    }
    text
}

fn model_row(mesh: &Mesh, name: &str, model: &Model) -> Vec<Cell> {
    let copies: Vec<_> = mesh.copies(&model.active).filter(|(_, copy)| copy.state != "FAILED").collect();
    let ready = copies.iter().filter(|(_, copy)| copy.state == "READY").count();
    let wanted = mesh.refs.get(&model.active).map_or(0, |(_, wanted)| *wanted);
    let size = copies.iter().map(|(_, copy)| copy.bytes).max().unwrap_or(0);
    let state = mesh.state(&model.active);
    let changing = !model.target.is_empty() && model.target != model.active;
    let tone = match state {
        _ if changing => Tone::Notable,
        State::Loaded => Tone::Good,
        State::Loading => Tone::Notable,
        State::Standby => Tone::Plain,
        State::FailedToLoad | State::NoRuntime => Tone::Bad,
    };
    let shown = if changing { format!("{state:?} > {:?}", mesh.state(&model.target)) } else { format!("{state:?}") };
    let heat = mesh.heat.get(&model.active);
    let places = copies.iter().map(|(id, copy)| match copy.state {
        "READY" => short(id).to_owned(),
        state => format!("{} ({})", short(id), state.to_lowercase()),
    });
    let none = || Cell::new("-", Tone::Faint);
    let places = places.collect::<Vec<_>>().join(", ");
    vec![
        name.into(),
        Cell::new(shown, tone),
        if ready >= wanted as usize { ready.to_string() } else { format!("{ready} of {wanted}") }.into(),
        if size == 0 { none() } else { bytes(size).into() },
        heat.filter(|heat| heat.calls_per_second >= 0.05)
            .map_or_else(none, |it| format!("{:.1}", it.calls_per_second).into()),
        heat.map_or_else(none, |heat| age(heat.age_seconds).into()),
        if places.is_empty() { none() } else { places.into() },
    ]
}

fn instance_row(id: &str, instance: &Instance, wide: bool) -> Vec<Cell> {
    let ledger = &instance.ledger;
    let parts = [('#', ledger.loaded), ('+', ledger.reserved), ('-', ledger.unloading)];
    let over = if ledger.overrun > 0 { format!(" (+{} over)", bytes(ledger.overrun)) } else { String::new() };
    let used = ledger.loaded + ledger.reserved + ledger.unloading;
    let taken = match (ledger.capacity, wide) {
        (0, _) => "-".to_owned(),
        (capacity, true) => format!("{} of {}{over}", bytes(used), bytes(capacity)),
        (capacity, false) => {
            format!("{}% of {}{over}", u128::from(used) * 100 / u128::from(capacity), bytes(capacity))
        }
    };
    let state = match (instance.connected, instance.leaving, instance.accepts_new) {
        (false, _, _) => Cell::new("unreachable", Tone::Bad),
        (true, _, _) if ledger.hung > 0 => Cell::new("up, hung", Tone::Bad),
        (true, true, _) => Cell::new("leaving", Tone::Notable),
        (true, false, false) => Cell::new("up, full", Tone::Notable),
        (true, false, true) => Cell::new("up", Tone::Good),
    };
    vec![
        short(id).into(),
        instance.runtime.clone().into(),
        state,
        format!("[{}]", bar(if wide { 24 } else { 8 }, ledger.capacity, parts)).into(),
        taken.into(),
        instance.copies.values().filter(|copy| copy.state == "READY").count().to_string().into(),
        ledger.queue.to_string().into(),
    ]
}

/// The table's version and who has it.
fn proxies(mesh: &Mesh) -> String {
    let table = mesh.table.as_deref().unwrap_or("none");
    let away = if mesh.control_connected { "" } else { ", control is away" };
    let plural = if mesh.proxies == 1 { "y" } else { "ies" };
    let behind = mesh.proxies_behind().count();
    let have = match (mesh.proxy_tables.len(), behind) {
        (0, _) => String::new(),
        (_, 0) => ", the table is in force at all".to_owned(),
        (all, behind) => format!(", the table is in force at {} of {all}", all - behind),
    };
    format!("table {table}, {} prox{plural} connected{have}{away}", mesh.proxies)
}

/// Last 12 characters of an instance id, as ModelMesh shows locations.
pub(crate) fn short(id: &str) -> &str {
    let from = id.char_indices().rev().nth(11).map_or(0, |(at, _)| at);
    &id[from..]
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::observe::sample;

    #[test]
    fn a_mesh_fits_eighty_columns() {
        let text = tables(&sample(), Screen { width: Some(80), colours: false }, "");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_snapshot!(text);
    }

    #[test]
    fn a_mesh_on_a_wide_screen() {
        assert_snapshot!(tables(&sample(), Screen::default(), ""));
    }

    #[test]
    fn only_models_of_the_filter_are_listed() {
        let text = tables(&sample(), Screen::default(), "mnist");
        let models = text.split("\n\n").next().unwrap_or_default();
        assert!(models.contains("mnist") && !models.contains("fraud-detector"), "{text}");
    }

    #[test]
    fn an_empty_mesh_says_so() {
        assert!(tables(&Mesh::default(), Screen::default(), "").contains("no models yet"));
    }
}
