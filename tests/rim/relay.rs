//! A proxy that cannot connect a model server itself goes through the agent's relay.

use crate::world::{World, free};

#[tokio::test]
async fn a_proxy_that_cannot_connect_direct_uses_the_relay_and_says_so_once() {
    // Nothing listens where the agent says that proxies reach the server.
    let nobody = free();
    let mut world = World::start(true, &format!("--data-direct {nobody}"), "").await;
    for _ in 0..5 {
        // No caller notices.
        world.infer(1).await;
    }
    world.infer(400_000).await;
    let said = |world: &World| world.proxy.log().matches("cannot be connected, using the relay endpoint").count();
    assert_eq!(said(&world), 1, "{}", world.proxy.log());
    // A server that comes back after a while is found by the same way.
    world.runtime.kill_and_start();
    crate::world::until("the model is loaded again", async || {
        harness::grpc(world.proxy.listens).await.model_infer(crate::world::request(1)).await.is_ok()
    })
    .await;
    world.infer(1).await;
}
