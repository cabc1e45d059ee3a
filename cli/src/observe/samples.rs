//! A mesh in which much is going on, for tests.

use modelring_proto::v1::{self, TableChange, agent_event::Event, copy_state::State};

use super::Mesh;

/// Three models, one failed update, three instances of which one does not answer, two proxies of which one is behind.
pub(crate) fn sample() -> Mesh {
    let mut mesh = Mesh { control_connected: true, table: Some("3.12".to_owned()), n: 12, ..Mesh::default() };
    let model = |id: &str, class: &str| v1::Model {
        r#ref: Some(v1::ModelRef { id: id.to_owned(), ..Default::default() }),
        class: class.to_owned(),
        max_copies: 0,
    };
    let vmodel = |name: &str, active: &str, target: &str| v1::VModel {
        name: name.to_owned(),
        active: active.to_owned(),
        target: target.to_owned(),
        target_weight: 0,
    };
    let instance = |id: &str, accepts_new: bool| v1::Instance {
        id: id.to_owned(),
        address: format!("10.0.0.{}:11881", id.len()),
        runtime: "triton-2.x".to_owned(),
        accepts_new,
        ..Default::default()
    };
    mesh.apply(TableChange {
        classes: vec![
            v1::Class { id: "mt:onnx".to_owned(), runtimes: vec!["triton-2.x".to_owned()] },
            v1::Class { id: "mt:sklearn".to_owned(), runtimes: vec!["mlserver-1.x".to_owned()] },
        ],
        models: vec![
            model("mnist__isvc-1", "mt:onnx"),
            model("fraud-detector__isvc-1", "mt:onnx"),
            model("fraud-detector__isvc-2", "mt:onnx"),
            model("iris__isvc-1", "mt:sklearn"),
        ],
        vmodels: vec![
            vmodel("fraud-detector", "fraud-detector__isvc-1", "fraud-detector__isvc-2"),
            vmodel("iris", "iris__isvc-1", ""),
            vmodel("mnist", "mnist__isvc-1", ""),
        ],
        instances: vec![
            instance("triton-7d9c5b6f4-abcde", true),
            instance("triton-7d9c5b6f4-fghij", false),
            instance("triton-7d9c5b6f4-klmno", true),
        ],
        wanted: vec![v1::Wanted { model: "mnist__isvc-1".to_owned(), copies: 3 }],
        proxies: Some(2),
        notices: Some(v1::Notices {
            notices: vec![v1::Notice {
                subject: "iris.yaml:7".to_owned(),
                text: "unknown field `modelFromat` in spec.predictor.model; did you mean `modelFormat`?".to_owned(),
            }],
        }),
        ..Default::default()
    });
    let copy = |model: &str, state: State, mib: u64, text: &str| {
        let (model, text) = (model.to_owned(), text.to_owned());
        Event::Copy(v1::CopyState { model, state: state.into(), bytes: mib << 20, text, ..Default::default() })
    };
    let ledger = |loaded: u64, reserved: u64, unloading: u64, queue: u32, hung: u32| {
        Event::Ledger(v1::LedgerState {
            capacity: 512 << 20,
            loaded: loaded << 20,
            reserved: reserved << 20,
            unloading: unloading << 20,
            queue,
            hung,
            ..Default::default()
        })
    };
    let events = [
        ("triton-7d9c5b6f4-abcde", copy("mnist__isvc-1", State::Ready, 96, "")),
        ("triton-7d9c5b6f4-abcde", copy("fraud-detector__isvc-1", State::Ready, 160, "")),
        ("triton-7d9c5b6f4-abcde", ledger(256, 0, 64, 0, 0)),
        ("triton-7d9c5b6f4-fghij", copy("mnist__isvc-1", State::Loading, 96, "")),
        ("triton-7d9c5b6f4-fghij", copy("fraud-detector__isvc-2", State::Failed, 0, "the model has no input `x`")),
        ("triton-7d9c5b6f4-fghij", ledger(0, 96, 0, 3, 1)),
    ];
    for (id, event) in events {
        let instance = mesh.instances.get_mut(id).expect("it is listed");
        instance.apply(event);
        (instance.connected, instance.looked_at) = (true, true);
    }
    let heat = |model: &str, age_millis: u64, calls_per_second: f64, in_flight: u32| v1::ModelHeat {
        model: model.to_owned(),
        age_millis,
        calls_per_second,
        in_flight,
    };
    mesh.observe(v1::Observed {
        proxies: vec![
            v1::ProxyState { id: "1f0c".to_owned(), acknowledged: 12 },
            v1::ProxyState { id: "9ab2".to_owned(), acknowledged: 11 },
        ],
        models: vec![heat("mnist__isvc-1", 400, 812.4, 7), heat("fraud-detector__isvc-1", 240_000, 0.0, 0)],
    });
    mesh
}
