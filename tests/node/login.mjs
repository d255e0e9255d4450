// A login in the place of a person's: follows the authorization server's redirects to the client's own callback.

/** Fetches `address` and everything that it redirects to, with cookies, as a browser does. */
export async function login(address) {
    const cookies = new Map();
    let next = address;
    for (let hops = 0; next && hops < 20; hops += 1) {
        const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
        const response = await fetch(next, { redirect: 'manual', headers: cookie ? { cookie } : {} });
        for (const line of response.headers.getSetCookie()) {
            const [pair] = line.split(';');
            const at = pair.indexOf('=');
            cookies.set(pair.slice(0, at), pair.slice(at + 1));
        }
        await response.arrayBuffer();
        const location = response.headers.get('location');
        next = location && new URL(location, next).href;
    }
}
