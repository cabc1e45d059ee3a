//! `modelring status`.

use std::{fmt::Write, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{
    args::Seconds,
    observe::{Mesh, Observer},
    render,
    tls::Tls,
};

/// Which mesh, and how to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder that is served; control's address is read from it
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Where control is reached, instead of DIR
    #[arg(long, env = "MODELRING_CONTROL", value_name = "URL")]
    control: Option<String>,

    /// Namespace whose models are shown
    #[arg(long, env = "NAMESPACE", default_value = "default", value_name = "NAME")]
    namespace: String,

    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    tls: Tls,

    /// How long to wait for answers
    #[arg(long, default_value = "5s", value_name = "TIME")]
    timeout: Seconds,
}

/// Looks once and prints.
pub(crate) async fn run(args: Args) -> Result<()> {
    let control = match &args.control {
        Some(control) => control.clone(),
        None => control_of(&args.dir)?,
    };
    let mut observer = Observer::start(control.clone(), args.namespace.clone(), args.tls.identity().await?)?;
    let _ = tokio::time::timeout(args.timeout.0, observer.complete()).await;
    // Snapshots are whole; ledgers follow them.
    let _ = tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()).await;
    let mesh = observer.mesh();
    if mesh.table.is_none() {
        bail!("control at {control} did not answer within {:?}; is it running?", args.timeout.0);
    }
    print!("{}", if args.json { format!("{:#}\n", as_json(&mesh)) } else { as_tables(&mesh) });
    Ok(())
}

/// Address of the control that serves a folder.
fn control_of(dir: &std::path::Path) -> Result<String> {
    let file = dir.join(".modelring/control");
    let address = std::fs::read_to_string(&file).with_context(|| {
        format!(
            "{} cannot be read: name the folder that is served (modelring status DIR), or control itself (--control URL)",
            file.display()
        )
    })?;
    let address = address.trim();
    Ok(if address.starts_with("http") { address.to_owned() } else { format!("http://{address}") })
}

/// The mesh as JSON: what `--json` prints.
fn as_json(mesh: &Mesh) -> serde_json::Value {
    let models: Vec<_> = mesh
        .models
        .iter()
        .map(|(name, model)| {
            let copies: Vec<_> = mesh
                .copies(&model.active)
                .map(|(instance, copy)| json!({"instance": instance, "state": copy.state, "bytes": copy.bytes}))
                .collect();
            json!({
                "name": name,
                "state": mesh.state(&model.active),
                "active": model.active,
                "target": (!model.target.is_empty()).then_some(&model.target),
                "target_state": (!model.target.is_empty()).then(|| mesh.state(&model.target)),
                "wanted": mesh.refs.get(&model.active).map_or(0, |(_, wanted)| *wanted),
                "copies": copies,
                "error": mesh.error(model),
            })
        })
        .collect();
    json!({
        "table": mesh.table,
        "control_connected": mesh.control_connected,
        "proxies": mesh.proxies,
        "models": models,
        "instances": mesh.instances,
        "notices": mesh.notices,
    })
}

/// The mesh as tables.
fn as_tables(mesh: &Mesh) -> String {
    let mut text = String::new();
    let rows: Vec<Vec<String>> = mesh.models.iter().map(|(name, model)| row(mesh, name, model)).collect();
    text.push_str(&render::table(&["MODEL", "STATE", "COPIES", "SIZE", "WHERE", "CHANGE", "LAST ERROR"], &rows));
    text.push('\n');
    let rows: Vec<Vec<String>> = mesh
        .instances
        .iter()
        .map(|(id, instance)| {
            let ledger = &instance.ledger;
            let parts = [('#', ledger.loaded), ('+', ledger.reserved), ('-', ledger.unloading)];
            vec![
                short(id).to_owned(),
                instance.runtime.clone(),
                match (instance.connected, instance.leaving) {
                    (false, _) => "unreachable",
                    (true, true) => "leaving",
                    (true, false) => "up",
                }
                .to_owned(),
                format!("[{}]", render::bar(24, ledger.capacity, parts)),
                format!(
                    "{} of {}",
                    render::bytes(ledger.loaded + ledger.reserved + ledger.unloading),
                    render::bytes(ledger.capacity)
                ),
                instance.copies.values().filter(|copy| copy.state == "READY").count().to_string(),
                ledger.queue.to_string(),
                instance.address.clone(),
            ]
        })
        .collect();
    let head = ["INSTANCE", "RUNTIME", "STATE", "MEMORY", "USED", "READY", "QUEUE", "AGENT"];
    text.push_str(&render::table(&head, &rows));
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "\ntable {}, {} prox{} connected{}",
        mesh.table.as_deref().unwrap_or("none"),
        mesh.proxies,
        if mesh.proxies == 1 { "y" } else { "ies" },
        if mesh.control_connected { "" } else { ", control is away" }
    );
    for notice in &mesh.notices {
        let _ = writeln!(text, "! {}: {}", notice.subject, notice.text);
    }
    text
}

fn row(mesh: &Mesh, name: &str, model: &crate::observe::Model) -> Vec<String> {
    let copies: Vec<_> = mesh.copies(&model.active).filter(|(_, copy)| copy.state != "FAILED").collect();
    let ready = copies.iter().filter(|(_, copy)| copy.state == "READY").count();
    let wanted = mesh.refs.get(&model.active).map_or(0, |(_, wanted)| *wanted);
    let size = copies.iter().map(|(_, copy)| copy.bytes).max().unwrap_or(0);
    vec![
        name.to_owned(),
        format!("{:?}", mesh.state(&model.active)),
        if ready >= wanted as usize { ready.to_string() } else { format!("{ready} of {wanted}") },
        if size == 0 { "-".to_owned() } else { render::bytes(size) },
        match copies.iter().map(|(id, _)| short(id)).collect::<Vec<_>>() {
            ids if ids.is_empty() => "-".to_owned(),
            ids => ids.join(","),
        },
        if model.target.is_empty() || model.target == model.active {
            "-".to_owned()
        } else {
            format!("to {} ({:?})", model.target, mesh.state(&model.target))
        },
        mesh.error(model).unwrap_or_else(|| "-".to_owned()).replace('\n', " "),
    ]
}

/// Last 12 characters of an instance id, as ModelMesh shows locations.
pub(crate) fn short(id: &str) -> &str {
    let from = id.char_indices().rev().nth(11).map_or(0, |(at, _)| at);
    &id[from..]
}
