//! Which model a call names, and what it is told where it names none.

use modelring_proto::v1;
use modelring_proxy::engine::{
    answer::Reason,
    policy::{First, Policy},
};

use crate::{
    scripted::ScriptedAgent,
    world::{INFER, Settled, World, change, head, model, settle},
};

async fn two_models(agent: &ScriptedAgent) -> World {
    let mut change = change(&[agent]);
    change.models.push(model("other", "c"));
    change.vmodels.push(v1::VModel { name: "w".into(), active: "other".into(), ..Default::default() });
    agent.ready("m");
    agent.ready("other");
    let world = World::with(&[agent], change).await;
    world.usable("m", true).await;
    world.usable("other", true).await;
    world
}

fn asked_for(settled: Settled) -> String {
    let headers = settled.plan().response_headers;
    let (_, id) = headers.into_iter().find(|(name, _)| name == "mm-model-id").expect("the id that answers");
    id.to_str().expect("text").into()
}

#[tokio::test]
async fn the_name_in_the_message_wins_over_the_headers() {
    let agent = ScriptedAgent::start("a").await;
    let world = two_models(&agent).await;
    let headers = head(INFER, &[("mm-vmodel-id", "w")]);
    assert_eq!(asked_for(world.call(&headers, Some("v")).await), "m");
    assert_eq!(asked_for(world.call(&headers, None).await), "other");
    assert_eq!(asked_for(world.call(&headers, Some("")).await), "other");
}

#[tokio::test]
async fn a_method_without_a_rule_is_routed_by_its_headers() {
    let agent = ScriptedAgent::start("a").await;
    let world = two_models(&agent).await;
    let plan = world.call(&head("/some.Service/Method", &[("mm-model-id", "other")]), None).await.plan();
    assert_eq!((plan.request_tail, plan.response_tail), (None, None));
    assert!(!plan.unary);
}

#[tokio::test]
async fn the_server_gets_the_concrete_id_and_the_caller_the_name_that_it_asked_for() {
    let agent = ScriptedAgent::start("a").await;
    let world = two_models(&agent).await;
    let plan = world.infer().await.plan();
    assert_eq!(plan.request_tail.as_deref(), Some(&b"\x0a\x01m"[..]));
    assert_eq!(plan.response_tail.as_deref(), Some(&b"\x0a\x01v"[..]));
    let names: Vec<_> = plan.request_headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(names, [("mm-model-id", &b"m"[..]), ("mm-model-id-bin", b"bQ")]);
    assert!(plan.unary);
}

#[tokio::test]
async fn the_paths_that_the_runtime_tells_are_used_and_methods_that_it_does_not_list_are_refused() {
    let agent = ScriptedAgent::start("a").await;
    agent.introduce(|hello| {
        let name = "pkg.Predictor/Predict".into();
        hello.methods = vec![v1::Method { name, request_path: vec![1, 2], response_path: vec![] }];
    });
    let world = two_models(&agent).await;
    let call = |path| head(path, &[("mm-model-id", "m")]);
    let plan = world.call(&call("/pkg.Predictor/Predict"), None).await.plan();
    assert_eq!(plan.request_tail.as_deref(), Some(&b"\x0a\x03\x12\x01m"[..]));
    let refused = world.call(&call("/pkg.Predictor/Other"), None).await.answer();
    let text = "Method not found or not permitted: pkg.Predictor/Other";
    assert_eq!(refused, (Some(Reason::MN), 12, text.into()));
    assert_eq!(world.in_flight("m"), 1, "the plan counts, the refusal does not");
}

#[tokio::test]
async fn a_method_without_a_path_passes_as_it_is_and_a_runtime_may_allow_those_that_it_does_not_list() {
    let agent = ScriptedAgent::start("a").await;
    agent.introduce(|hello| {
        hello.methods = vec![v1::Method { name: "pkg.Predictor/List".into(), ..Default::default() }];
        hello.allow_any_method = true;
    });
    let world = two_models(&agent).await;
    for path in ["/pkg.Predictor/List", "/pkg.Predictor/Other"] {
        let plan = world.call(&head(path, &[("mm-model-id", "m")]), None).await.plan();
        assert_eq!((plan.request_tail, plan.response_tail), (None, None), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_in_the_table_is_not_found() {
    let agent = ScriptedAgent::start("a").await;
    let world = two_models(&agent).await;
    let answer = world.call(&head(INFER, &[]), Some("nobody")).await.answer();
    assert_eq!(answer, (Some(Reason::NM), 5, "vmodel not found".into()));
    let by_id = world.call(&head(INFER, &[("mm-model-id", "v")]), None).await.answer();
    assert_eq!(by_id, (Some(Reason::NM), 5, "model not found".into()));
    let by_name = world.call(&head(INFER, &[("mm-vmodel-id", "m")]), None).await.answer();
    assert_eq!(by_name, (Some(Reason::NM), 5, "vmodel not found".into()));
}

#[tokio::test]
async fn a_model_that_no_runtime_takes_is_a_failed_precondition() {
    let agent = ScriptedAgent::start("a").await;
    let mut change = change(&[&agent]);
    change.classes.push(v1::Class { id: "mt:odd".into(), runtimes: vec![] });
    change.models.push(model("odd", "mt:odd"));
    let world = World::with(&[&agent], change).await;
    let (reason, code, text) = world.call(&head(INFER, &[("mm-model-id", "odd")]), None).await.answer();
    assert_eq!((reason, code), (Some(Reason::NR), 9));
    assert!(text.contains("mt:odd"), "{text}");
}

#[tokio::test]
async fn methods_that_manage_a_server_and_methods_without_leave_are_not_offered() {
    let agent = ScriptedAgent::start("a").await;
    let mut change = change(&[&agent]);
    let rule = v1::RpcRule { method: "a.Service/Permitted".into(), ..Default::default() };
    change.tuning = Some(v1::Tuning { rpcs: vec![rule], allow_other_rpcs: Some(false), ..Default::default() });
    agent.ready("m");
    let world = World::with(&[&agent], change).await;
    world.usable("m", true).await;
    let call = async |path| world.call(&head(path, &[("mm-model-id", "m")]), None).await;
    for path in ["/mmesh.ModelRuntime/loadModel", "/inference.GRPCInferenceService/RepositoryIndex", "/a.Service/Other"]
    {
        let (reason, code, _) = call(path).await.answer();
        assert_eq!((reason, code), (Some(Reason::MN), 12), "{path}");
    }
    call("/a.Service/Permitted").await.plan();
}

#[tokio::test]
async fn the_proxy_answers_health_itself_unless_a_header_names_a_model() {
    let agent = ScriptedAgent::start("a").await;
    let world = two_models(&agent).await;
    let path = "/grpc.health.v1.Health/Check";
    assert!(matches!(world.call(&head(path, &[]), None).await, Settled::Serve));
    world.call(&head(path, &[("mm-vmodel-id", "v")]), None).await.plan();
    let ready = head("/inference.GRPCInferenceService/ModelReady", &[("mm-vmodel-id", "v")]);
    assert!(matches!(world.call(&ready, None).await, Settled::Serve));
}

#[tokio::test]
async fn a_canary_takes_its_share_of_the_calls() {
    let agent = ScriptedAgent::start("a").await;
    let mut world = two_models(&agent).await;
    let mut split = |target_weight| {
        let mut change = change(&[&agent]);
        change.models.push(model("other", "c"));
        let (name, active, target) = ("v".into(), "m".into(), "other".into());
        change.vmodels = vec![v1::VModel { name, active, target, target_weight }];
        world.install(change);
    };
    split(0);
    split(100);
    assert_eq!(asked_for(world.infer().await), "other");
}

#[tokio::test]
async fn a_call_sees_one_version_of_the_table_however_often_it_changes_meanwhile() {
    let agent = ScriptedAgent::start("a").await;
    let mut world = two_models(&agent).await;
    let point_at = |world: &mut World, active: &str| {
        let mut change = change(&[&agent]);
        change.models.push(model("other", "c"));
        change.vmodels = vec![v1::VModel { name: "v".into(), active: active.into(), ..Default::default() }];
        world.install(change);
    };
    for changes in 0..4 {
        point_at(&mut world, "m");
        let call = head(INFER, &[]);
        assert!(matches!(world.mesh.head(&call), First::Peek(_)), "the name is in the message");
        for _ in 0..changes {
            point_at(&mut world, "other");
        }
        let begun = settle(world.mesh.route(&call, Some(b"v"))).await;
        assert_eq!(asked_for(begun), "m", "after {changes} changes");
    }
    assert_eq!(asked_for(world.infer().await), "other");
}

#[tokio::test]
async fn the_proxy_answers_reflection_itself_unless_a_header_names_a_model() {
    let agent = ScriptedAgent::start("a").await;
    let world = two_models(&agent).await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        assert!(matches!(world.call(&head(&path, &[]), None).await, Settled::Serve));
        let plan = world.call(&head(&path, &[("mm-vmodel-id", "v")]), None).await.plan();
        assert_eq!(&*plan.target.key.0, "a", "that model's server answers");
    }
}
