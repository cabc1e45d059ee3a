//! Wanted copies and the change of a service, with agents whose answers the tests write.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;

use common::{Client, Mesh, agent::FakeAgent, agent::Outcome, service};
use modelring_proto::v1::{
    CopyUsage, Nack, Role, Usage, copy_state::State, load_request::Why, proxy_message::Message, refused::Reason,
};

async fn ready(client: &mut Client, agent: &FakeAgent, name: &str) -> String {
    client.until("the instance", |table| !table.instances.is_empty() && table.vmodels.contains_key(name)).await;
    let model = client.active(name).to_owned();
    eventually("the first copy", || agent.is_ready(&model)).await;
    model
}

/// Waits until something is so that no stream tells.
async fn eventually(what: &str, is: impl Fn() -> bool) {
    let waited = tokio::time::timeout(common::PATIENCE, async {
        while !is() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}

/// The record of a service, `(active, before)`.
fn record(mesh: &Mesh, name: &str) -> (String, Option<String>) {
    let text = fs::read_to_string(mesh.file(&format!(".modelring/active/{name}.json"))).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let id = |model: &serde_json::Value| model["id"].as_str().map(str::to_owned);
    (id(&record["active"]).unwrap(), id(&record["before"]))
}

#[tokio::test]
async fn a_new_service_is_loaded_once_and_then_wants_nothing_without_traffic() {
    let agent = FakeAgent::start("i1").await;
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "p"))], &[&agent]).await;
    let mut client = mesh.client(Role::Proxy).await;
    let model = ready(&mut client, &agent, "a").await;
    client.until("no want", |table| table.wanted.get(&model).is_none_or(|copies| *copies == 0)).await;
    let instance = &client.table.instances["i1"];
    assert_eq!((instance.runtime.as_str(), instance.pod_uid.as_str()), ("small", "i1-uid"));
    assert_eq!(instance.address, agent.address().to_string());
    assert!(instance.accepts_new && !instance.leaving);
    assert_eq!(agent.asked().len(), 1);
    assert_eq!(agent.asked()[0].why(), Why::Keep);
    assert_eq!(agent.asked()[0].table.unwrap().epoch, client.version.epoch);
}

#[tokio::test]
async fn a_model_that_fails_for_good_is_not_asked_for_again_and_is_named() {
    let agent = FakeAgent::start("i1").await;
    agent.script(|_| Outcome::Fails(3, "it is no onnx file"));
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "p"))], &[&agent]).await;
    let mut client = mesh.client(Role::Observer).await;
    let table = client.until("the notice", |table| table.notes("InferenceService/a", "it is no onnx file")).await;
    assert!(table.wanted.values().all(|copies| *copies == 0));
    assert_eq!(agent.asked().len(), 1);
}

#[tokio::test]
async fn min_copies_are_kept_on_as_many_instances_and_pinned_there() {
    let (one, two) = (FakeAgent::start("i1").await, FakeAgent::start("i2").await);
    let manifest = service("a", "p").replace("annotations:", "annotations:\n    modelring.dev/min-copies: \"2\"");
    let mesh = Mesh::start_with(&[("a.yaml", &manifest)], &[&one, &two]).await;
    let mut client = mesh.client(Role::Proxy).await;
    let model = ready(&mut client, &one, "a").await;
    eventually("both copies", || one.is_ready(&model) && two.is_ready(&model)).await;
    eventually("both pinned", || one.hints().keep == [model.clone()] && two.hints().keep == [model.clone()]).await;
    one.set(&model, State::Gone);
    eventually("the lost copy is loaded again", || one.is_ready(&model)).await;
}

#[tokio::test]
async fn a_saturated_copy_has_a_second_one_asked_for_at_once_for_scale() {
    let agents = [FakeAgent::start("i1").await, FakeAgent::start("i2").await];
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "p"))], &[&agents[0], &agents[1]]).await;
    let mut client = mesh.client(Role::Proxy).await;
    client.until("both instances", |table| table.instances.len() == 2).await;
    let model = client.active("a").to_owned();
    eventually("the first copy", || agents.iter().any(|agent| agent.is_ready(&model))).await;
    client.until("control knows", |table| table.wanted.get(&model) == Some(&0)).await;
    let copy = CopyUsage {
        model: model.clone(),
        instance: "i1".to_owned(),
        in_flight: 3,
        saturated: true,
        ..CopyUsage::default()
    };
    client.say(Message::Usage(Usage { copies: vec![copy], models: Vec::new() })).await;
    eventually("the second copy", || agents.iter().all(|agent| agent.is_ready(&model))).await;
    let second = agents.iter().flat_map(FakeAgent::asked).find(|asked| asked.why() == Why::Scale);
    assert!(second.is_some());
    client.until("two are wanted", |table| table.wanted[&model] == 2).await;
}

#[tokio::test]
async fn copies_of_models_that_left_the_table_are_hinted_gone_and_those_too_many_surplus() {
    let (one, two) = (FakeAgent::start("i1").await, FakeAgent::start("i2").await);
    one.set("stranger__isvc-0000000000", State::Ready);
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "p"))], &[&one, &two]).await;
    let mut client = mesh.client(Role::Proxy).await;
    eventually("the hint", || one.hints().gone == ["stranger__isvc-0000000000"]).await;
    client.until("both instances", |table| table.instances.len() == 2).await;
    let model = client.active("a").to_owned();
    eventually("the first copy", || one.is_ready(&model) || two.is_ready(&model)).await;
    let other = if one.is_ready(&model) { &two } else { &one };
    other.set(&model, State::Ready);
    eventually("one of both is too many", || {
        [&one, &two].iter().filter(|agent| agent.hints().surplus == [model.clone()]).count() == 1
    })
    .await;
    assert!(one.hints().epoch == client.version.epoch && one.hints().keep.is_empty());
}

#[tokio::test]
async fn an_update_is_loaded_first_and_the_name_moves_when_it_is_ready() {
    let agent = FakeAgent::start("i1").await;
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "one"))], &[&agent]).await;
    let mut client = mesh.client(Role::Proxy).await;
    let old = ready(&mut client, &agent, "a").await;
    agent.script(|_| Outcome::Hangs);
    mesh.write("a.yaml", &service("a", "two"));
    let table = client.until("the target", |table| !table.vmodels["a"].target.is_empty()).await;
    let new = table.vmodels["a"].target.clone();
    assert_eq!(table.vmodels["a"].active, old);
    assert!(table.models.contains_key(&new) && table.models.contains_key(&old));
    eventually("it is asked for", || agent.asked().len() == 2).await;
    assert_eq!(record(&mesh, "a"), (old.clone(), None));

    client.acknowledges = false;
    agent.set(&new, State::Ready);
    client.until("the switch", |table| table.vmodels["a"].active == new && table.vmodels["a"].target.is_empty()).await;
    assert_eq!(record(&mesh, "a"), (new.clone(), Some(old.clone())), "the way back is kept until the proxies know");
    assert!(client.table.models.contains_key(&old));
    client.acknowledges = true;
    client.say(Message::Ack(modelring_proto::v1::Ack { version: Some(client.version) })).await;
    client.until("the old one goes", |table| !table.models.contains_key(&old)).await;
    assert_eq!(record(&mesh, "a"), (new, None));
    eventually("its copy is hinted gone", || agent.hints().gone == [old.clone()]).await;
}

#[tokio::test]
async fn an_update_that_fails_leaves_the_old_model_in_service_and_says_why() {
    let agent = FakeAgent::start("i1").await;
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "one"))], &[&agent]).await;
    let mut client = mesh.client(Role::Observer).await;
    let old = ready(&mut client, &agent, "a").await;
    agent.script(|_| Outcome::Fails(3, "broken bytes"));
    mesh.write("a.yaml", &service("a", "two"));
    let table = client.until("the notice", |table| table.notes("InferenceService/a", "broken bytes")).await;
    assert!(table.notes("InferenceService/a", &format!("{old} keeps serving")));
    assert_eq!(table.vmodels["a"].active, old);
    mesh.write("a.yaml", &service("a", "one"));
    let table = client.until("it is taken back", |table| table.vmodels["a"].target.is_empty()).await;
    assert_eq!(table.vmodels["a"].active, old);
}

#[tokio::test]
async fn without_space_the_only_copy_makes_room_after_the_load_timeout_once_the_proxies_know() {
    let agent = FakeAgent::start("i1").await;
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "one"))], &[&agent]).await;
    let mut client = mesh.client(Role::Proxy).await;
    let old = ready(&mut client, &agent, "a").await;
    agent.script(|request| match request.replaces.as_str() {
        "" => Outcome::Refuses(Reason::Full),
        _ => Outcome::Loads,
    });
    mesh.write("a.yaml", &service("a", "two"));
    client.acknowledges = false;
    client.until("the switch", |table| table.vmodels["a"].active != old).await;
    let new = client.active("a").to_owned();
    assert!(agent.is_ready(&old) && agent.asked().iter().all(|asked| asked.replaces.is_empty()));
    client.say(Message::Ack(modelring_proto::v1::Ack { version: Some(client.version) })).await;
    client.acknowledges = true;
    client.until("the change is through", |table| !table.models.contains_key(&old)).await;
    assert!(agent.is_ready(&new) && !agent.is_ready(&old));
    assert_eq!(agent.asked().last().unwrap().replaces, old);
    assert_eq!(record(&mesh, "a"), (new, None));
}

#[tokio::test]
async fn room_that_was_made_in_vain_brings_the_old_model_back() {
    let agent = FakeAgent::start("i1").await;
    let mut mesh = Mesh::start_with(&[("a.yaml", &service("a", "one"))], &[&agent]).await;
    let mut client = mesh.client(Role::Observer).await;
    let old = ready(&mut client, &agent, "a").await;
    let kept = old.clone();
    agent.script(move |request| match (request.replaces.as_str(), &request.model) {
        ("", Some(model)) if model.id == kept => Outcome::Loads,
        ("", _) => Outcome::Refuses(Reason::Full),
        _ => Outcome::Fails(3, "broken bytes"),
    });
    mesh.write("a.yaml", &service("a", "two"));
    client.until("the switch", |table| table.vmodels["a"].active != old).await;
    client.until("the way back", |table| table.vmodels["a"].active == old).await;
    eventually("the old model is loaded again", || agent.is_ready(&old)).await;
    client.until("the notice", |table| table.notes("InferenceService/a", "broken bytes")).await;
    assert_eq!(record(&mesh, "a"), (old.clone(), None));

    let new = agent.asked().iter().find(|asked| !asked.replaces.is_empty()).unwrap().model.clone().unwrap().id;
    mesh.restart().await;
    agent.set(&new, State::Gone);
    let (made, asked) = (replacing(&agent), agent.asked().len());
    // It is asked for once a second; the load timeout is 1 s.
    eventually("the new one goes on being asked for", || agent.asked().len() >= asked + 4).await;
    assert!(agent.is_ready(&old));
    assert_eq!(replacing(&agent), made, "room is made once per spec, also over a restart");
}

/// How often a load was asked for in place of another copy.
fn replacing(agent: &FakeAgent) -> usize {
    agent.asked().iter().filter(|asked| !asked.replaces.is_empty()).count()
}

#[tokio::test]
async fn nothing_is_switched_while_an_instance_of_the_class_is_unknown() {
    let (one, two) = (FakeAgent::start("i1").await, FakeAgent::start("i2").await);
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "one"))], &[&one, &two]).await;
    let mut client = mesh.client(Role::Observer).await;
    client.until("both instances", |table| table.instances.len() == 2).await;
    let old = client.active("a").to_owned();
    eventually("the first copy", || one.is_ready(&old) || two.is_ready(&old)).await;
    let (holder, other) = if one.is_ready(&old) { (&one, &two) } else { (&two, &one) };
    [holder, other].iter().for_each(|agent| agent.script(|_| Outcome::Hangs));
    holder.hide(true);
    mesh.write("a.yaml", &service("a", "two"));
    client.until("the target", |table| !table.vmodels["a"].target.is_empty()).await;
    let new = client.table.vmodels["a"].target.clone();
    let subject = format!("instance/{}", holder.address());
    client.until("the notice", |table| table.notes("InferenceService/a", "is not known what")).await;
    client.until("its cause", |table| table.notes(&subject, "does not answer")).await;
    other.set(&new, State::Ready);
    mesh.write("b.yaml", &service("b", "p"));
    client.until("a later table", |table| table.vmodels.contains_key("b")).await;
    assert_eq!(client.active("a"), old, "though the new one is ready and the old one is not seen");
    holder.hide(false);
    client.until("the switch", |table| table.vmodels["a"].active == new).await;
}

#[tokio::test]
async fn the_first_table_waits_five_seconds_for_an_agent_and_what_that_tells_later_is_not_called_surplus() {
    let (one, late) = (FakeAgent::start("i1").await, FakeAgent::start("i2").await);
    let probe = Mesh::start(&[("a.yaml", &service("a", "p"))]).await;
    let mut client = probe.client(Role::Proxy).await;
    client.until("the id", |table| table.vmodels.contains_key("a")).await;
    let model = client.active("a").to_owned();
    one.set(&model, State::Ready);
    late.set(&model, State::Ready);
    late.hide(true);
    let began = std::time::Instant::now();
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "p"))], &[&one, &late]).await;
    let mut client = mesh.client(Role::Proxy).await;
    client.until("the table", |table| table.vmodels.contains_key("a")).await;
    assert!(began.elapsed() >= std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(client.table.wanted[&model], 1, "as many as are ready");
    late.hide(false);
    client.until("both are wanted", |table| table.wanted[&model] == 2).await;
    eventually("both have hints", || one.hints().epoch > 0 && late.hints().epoch > 0).await;
    assert!(one.hints().surplus.is_empty() && late.hints().surplus.is_empty());
}

#[tokio::test]
async fn a_canary_takes_its_percentage_once_it_is_ready_and_goes_through_when_the_percentage_is_removed() {
    let agent = FakeAgent::start("i1").await;
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "one"))], &[&agent]).await;
    let mut client = mesh.client(Role::Proxy).await;
    let old = ready(&mut client, &agent, "a").await;
    agent.script(|_| Outcome::Hangs);
    let canary = |percent: i64| {
        service("a", "two").replace("  predictor:", &format!("  predictor:\n    canaryTrafficPercent: {percent}"))
    };
    mesh.write("a.yaml", &canary(20));
    client.until("the target", |table| !table.vmodels["a"].target.is_empty()).await;
    let new = client.table.vmodels["a"].target.clone();
    assert_eq!(client.table.vmodels["a"].target_weight, 0, "nobody is sent to what is not ready");
    agent.set(&new, State::Ready);
    client.until("its share", |table| table.vmodels["a"].target_weight == 20).await;
    assert_eq!(client.active("a"), old);
    mesh.write("a.yaml", &canary(0));
    client.until("all to the old one", |table| table.vmodels["a"].target_weight == 0).await;
    assert_eq!((client.active("a"), record(&mesh, "a")), (&*old, (old.clone(), None)));
    mesh.write("a.yaml", &canary(100));
    client
        .until("the promotion", |table| table.vmodels["a"].active == new && table.vmodels["a"].target.is_empty())
        .await;
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_change_keeps_the_old_model_and_goes_on() {
    let agent = FakeAgent::start("i1").await;
    let mut mesh = Mesh::start_with(&[("a.yaml", &service("a", "one"))], &[&agent]).await;
    let mut client = mesh.client(Role::Proxy).await;
    let old = ready(&mut client, &agent, "a").await;
    agent.script(|_| Outcome::Hangs);
    mesh.write("a.yaml", &service("a", "two"));
    client.until("the target", |table| !table.vmodels["a"].target.is_empty()).await;
    mesh.restart().await;
    let mut client = mesh.client(Role::Proxy).await;
    let table = client.until("the table", |table| table.vmodels.contains_key("a")).await;
    assert_eq!(table.vmodels["a"].active, old);
    let new = table.vmodels["a"].target.clone();
    assert!(!new.is_empty());
    mesh.stop().await;
    // A control that stopped between the record and the table left both.
    let text = fs::read_to_string(mesh.file(".modelring/active/a.json")).unwrap();
    let mut left: serde_json::Value = serde_json::from_str(&text).unwrap();
    left["before"] = left["active"].clone();
    left["active"]["id"] = new.clone().into();
    left["active"]["path"] = "two".into();
    fs::write(mesh.file(".modelring/active/a.json"), left.to_string()).unwrap();
    mesh.restart().await;
    let mut client = mesh.client(Role::Proxy).await;
    let table = client.until("the table", |table| table.vmodels.contains_key("a")).await;
    assert_eq!((table.vmodels["a"].active.as_str(), table.vmodels["a"].target.as_str()), (old.as_str(), new.as_str()));
    agent.set(&new, State::Ready);
    client.until("the change goes through", |table| table.vmodels["a"].active == new).await;
}

#[tokio::test]
async fn a_manifest_that_is_broken_at_a_restart_keeps_what_it_said_before() {
    let agent = FakeAgent::start("i1").await;
    let mut mesh = Mesh::start_with(&[("a.yaml", &service("a", "one"))], &[&agent]).await;
    let mut client = mesh.client(Role::Proxy).await;
    let old = ready(&mut client, &agent, "a").await;
    mesh.stop().await;
    mesh.write("a.yaml", "kind: [");
    mesh.restart().await;
    let mut client = mesh.client(Role::Proxy).await;
    client.until("the table", |table| table.vmodels.contains_key("a")).await;
    assert_eq!(client.active("a"), old);
    fs::remove_file(mesh.file("a.yaml")).unwrap();
    client.until("the removal", |table| table.vmodels.is_empty()).await;
}

#[tokio::test]
async fn a_proxy_that_refuses_a_table_is_named_and_gets_a_whole_one_when_it_dials_again() {
    let mesh = Mesh::start(&[("a.yaml", &service("a", "p"))]).await;
    let mut observer = mesh.client(Role::Observer).await;
    let mut proxy = mesh.client(Role::Proxy).await;
    proxy.until("the table", |table| table.vmodels.contains_key("a")).await;
    proxy.say(Message::Nack(Nack { version: Some(proxy.version), reason: "no such class".to_owned() })).await;
    observer.until("the notice", |table| table.notes("proxy/Proxy", "no such class")).await;
    let ended = loop {
        if let Err(ended) = proxy.update().await {
            break ended;
        }
    };
    assert_eq!(ended.unwrap().code(), tonic::Code::Aborted);
    let mut proxy = mesh.client(Role::Proxy).await;
    proxy.until("a whole table", |table| table.vmodels.contains_key("a")).await;
    observer.until("it is taken", |table| table.notices.is_empty()).await;
}

#[tokio::test]
async fn an_instance_beyond_loopback_is_named_and_not_dialled() {
    let mesh = Mesh::start(&[("instances.yaml", "- address: 192.0.2.7:11881\n  runtime: small\n")]).await;
    let mut observer = mesh.client(Role::Observer).await;
    observer.until("the notice", |table| table.notes("instance/192.0.2.7:11881", "mTLS")).await;
}

#[tokio::test]
async fn a_hot_copy_of_a_leaving_instance_is_loaded_elsewhere_and_then_called_surplus() {
    let (one, two) = (FakeAgent::start("i1").await, FakeAgent::start("i2").await);
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "p"))], &[&one, &two]).await;
    let mut client = mesh.client(Role::Proxy).await;
    client.until("both instances", |table| table.instances.len() == 2).await;
    let model = client.active("a").to_owned();
    eventually("the first copy", || one.is_ready(&model) || two.is_ready(&model)).await;
    let (leaving, other) = if one.is_ready(&model) { (&one, &two) } else { (&two, &one) };
    let copy = CopyUsage { model: model.clone(), requests: 1, busy_micros: 10, ..CopyUsage::default() };
    client.say(Message::Usage(Usage { copies: vec![copy], models: Vec::new() })).await;
    client.until("it is wanted", |table| table.wanted.get(&model) == Some(&1)).await;
    leaving.leave();
    client.until("the table says so", |table| table.instances.values().any(|instance| instance.leaving)).await;
    eventually("a copy elsewhere", || other.is_ready(&model)).await;
    eventually("the hint", || leaving.hints().surplus == [model.clone()]).await;
    assert!(other.hints().surplus.is_empty());
}

#[tokio::test]
async fn an_instance_that_is_busier_than_the_others_of_its_runtime_gets_no_new_copies() {
    let agents = [FakeAgent::start("i1").await, FakeAgent::start("i2").await];
    let mesh = Mesh::start_with(&[("a.yaml", &service("a", "p"))], &[&agents[0], &agents[1]]).await;
    let mut client = mesh.client(Role::Proxy).await;
    client.until("both instances", |table| table.instances.len() == 2).await;
    let model = client.active("a").to_owned();
    let busy = |instance: &str, millis: u64| CopyUsage {
        model: model.clone(),
        instance: instance.to_owned(),
        requests: 10,
        busy_micros: millis * 1000,
        ..CopyUsage::default()
    };
    let copies = vec![busy("i1", 60_000), busy("i2", 20_000)];
    client.say(Message::Usage(Usage { copies, models: Vec::new() })).await;
    let table = client.until("the mark", |table| !table.instances["i1"].accepts_new).await;
    assert!(table.instances["i2"].accepts_new);
    client.until("it is calm again", |table| table.instances["i1"].accepts_new).await;
}
