//! The mesh as JSON. Fields are only ever added; `docs/observing.md` lists them.

use serde_json::{Value, json};

use crate::observe::Mesh;

/// What `--output json` prints.
pub(super) fn of(mesh: &Mesh, filter: &str) -> Value {
    let models = mesh.by_heat(filter).into_iter().map(|(name, model)| {
        let copies: Vec<_> = mesh
            .copies(&model.active)
            .map(|(instance, copy)| json!({"instance": instance, "state": copy.state, "bytes": copy.bytes}))
            .collect();
        let heat = mesh.heat.get(&model.active);
        let target = (!model.target.is_empty()).then_some(&model.target);
        json!({
            "name": name,
            "state": mesh.state(&model.active),
            "active": model.active,
            "target": target,
            "target_state": target.map(|target| mesh.state(target)),
            "wanted": mesh.refs.get(&model.active).map_or(0, |(_, wanted)| *wanted),
            "copies": copies,
            "calls_per_second": heat.map_or(0.0, |heat| heat.calls_per_second),
            "last_used_seconds": heat.map(|heat| heat.age_seconds),
            "in_flight": heat.map_or(0, |heat| heat.in_flight),
            "error": mesh.error(model),
        })
    });
    let wrong: Vec<_> =
        mesh.wrongs().into_iter().map(|(subject, text)| json!({"subject": subject, "text": text})).collect();
    json!({
        "table": mesh.table,
        "control_connected": mesh.control_connected,
        "proxies": mesh.proxies,
        "proxy_tables": mesh.proxy_tables,
        "models": models.collect::<Vec<_>>(),
        "instances": mesh.instances,
        "notices": mesh.notices,
        "wrong": wrong,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sample;

    #[test]
    fn the_schema_stays() {
        insta::assert_snapshot!(format!("{:#}", of(&sample(), "")));
    }
}
